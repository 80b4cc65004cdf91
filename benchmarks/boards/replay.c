/*
 * Plays a recording on a board: every action must be the recorded one. Counts the instructions of each decision and
 * measures its stack, which is painted beforehand; writes one line for each figure, in hexadecimal.
 */
#include "agent.h"
#include "board.h"
#include "episode.h"

#define PAINT UINT32_C(0xc0dec0de)
#define LOOP_ROUNDS 1000

static struct kd_agent agent;

static void report(const char *name, uint32_t value)
{
    char text[] = " 00000000\n";
    int digit;

    for (digit = 8; digit > 0; digit--, value >>= 4) {
        text[digit] = "0123456789abcdef"[value & 15];
    }
    board_write(name);
    board_write(text);
}

static uint32_t since(uint32_t from)
{
    return (board_counter() - from) & BOARD_COUNTER_MASK;
}

/* Copies word by word, so that memcpy is in the program only where the agent calls it. */
static void copy(struct kd_agent *to, const struct kd_agent *from)
{
    volatile uint32_t *out = (volatile uint32_t *)to;
    const volatile uint32_t *in = (const volatile uint32_t *)from;
    unsigned word;

    for (word = 0; word < sizeof *to / sizeof *in; word++) {
        out[word] = in[word];
    }
}

/* Plays the step and returns the bytes of stack that it takes beyond this function's own. */
static __attribute__((noinline)) uint32_t painted(int step, int *action)
{
    volatile uint32_t *word;
    uint32_t *here;

    BOARD_STACK_POINTER(here);
    for (word = board_stack_lowest; word < here; word++) {
        *word = PAINT;
    }
    *action = kd_agent_act(&agent, kd_record_features[step], kd_record_available[step]);
    for (word = board_stack_lowest; word < here && *word == PAINT; word++) {
    }
    return (uint32_t)((uintptr_t)here - (uintptr_t)word);
}

int main(void)
{
    static struct kd_agent before;
    uint32_t most = 0, deepest = 0, overhead, loop, from;
    int step, agreed = 0;

    from = board_counter();
    overhead = since(from);
    from = board_counter();
    board_loop(LOOP_ROUNDS);
    loop = since(from) - overhead;
    for (step = 0; step < KD_RECORD_STEPS; step++) {
        uint32_t taken, stack;
        int action, again;

        if (kd_record_begins[step]) {
            kd_agent_init(&agent);
        }
        copy(&before, &agent);
        stack = painted(step, &again);
        copy(&agent, &before);
        from = board_counter();
        action = kd_agent_act(&agent, kd_record_features[step], kd_record_available[step]);
        taken = since(from) - overhead;
        most = taken > most ? taken : most;
        deepest = stack > deepest ? stack : deepest;
        agreed += action == kd_record_actions[step] && again == action;
    }
    report("loop", loop);
    report("steps", KD_RECORD_STEPS);
    report("agreed", (uint32_t)agreed);
    report("ticks", most);
    report("stack", deepest);
    report("stack_told", KD_AGENT_STACK_BYTES);
    report("state", sizeof agent);
    return agreed == KD_RECORD_STEPS ? 0 : 1;
}
