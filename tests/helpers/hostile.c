/*
 * Gives the C of an agent what it must survive: features of any bits, a damaged or uninitialised memory, any
 * availability, and messages of any bits. Compiled beside the program, with a sanitizer and its self-test; every buffer
 * is a block of its own on the heap.
 *
 *     hostile INPUTS SEED [WEIGHTS]
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "kd_agent_0.h"

#define CHECK(true_thing)                                                       \
    do {                                                                        \
        if (!(true_thing)) {                                                    \
            fprintf(stderr, "line %d: not %s\n", __LINE__, #true_thing);        \
            exit(1);                                                            \
        }                                                                       \
    } while (0)
#ifdef KD_AGENT_MESSAGE_BYTES
#define RADIO , inbox, outbox
#define MARKS 3 /* words of the struct behind the state: its turn too */
#else
#define RADIO
#define MARKS 2
#endif
#define PICK(list) ((list)[draw() % (sizeof(list) / sizeof *(list))])

static const uint32_t special[] = {
    0x00000000u, 0x80000000u, /* zeros */
    0x00000001u, 0x80000001u, 0x007fffffu, 0x807fffffu, /* denormals */
    0x00800000u, 0x3f800000u, 0xbf800000u, 0x3f810000u, 0x3f810001u, /* the smallest normal number, ones, the bound of a state */
    0x7f7fffffu, 0xff7fffffu, 0x7e967699u, 0x5f000000u, /* the largest, and others that overflow when squared */
    0x7f800000u, 0xff800000u, /* infinities */
    0x7fc00000u, 0xffc00000u, 0x7f800001u, 0xffffffffu /* quiet and signalling NaN */
};
static uint64_t seed;

static uint32_t draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 16);
}

static void fill(void *to, size_t size)
{
    unsigned char *bytes = to;
    while (size--) {
        *bytes++ = (unsigned char)draw();
    }
}

static void draw_features(float *features, uint32_t kind)
{
    int i;
    for (i = 0; i < KD_AGENT_INPUTS; i++) {
        uint32_t bits = 0x3f800000u + draw() % 0x800000u; /* 1 to 2 */
        if (kind == 1 || (kind == 2 && draw() % KD_AGENT_INPUTS == 0)) {
            bits = PICK(special);
        } else if (kind == 3) {
            bits = draw();
        } else if (kind == 4) {
            bits = draw() % 0x60000000u;
        }
        bits ^= draw() & 0x80000000u;
        memcpy(features + i, &bits, sizeof bits);
    }
}

static void draw_available(unsigned char *available, uint32_t kind)
{
    int i;
    for (i = 0; i < KD_AGENT_ACTIONS; i++) {
        available[i] = (unsigned char)(kind == 0 ? 1 : kind == 1 ? 0 : kind == 2 ? draw() : draw() % 2);
    }
}

static void damage(struct kd_agent *agent)
{
    unsigned char *bytes = (unsigned char *)agent;
    const size_t words = sizeof *agent / sizeof(uint32_t);
    uint32_t word = PICK(special);
    switch (draw() % 4) {
    case 0: /* one bit, anywhere */
        bytes[draw() % sizeof *agent] ^= (unsigned char)(1u << draw() % 8);
        break;
    case 1: /* one word of the state */
        memcpy(bytes + sizeof word * (draw() % (words - MARKS)), &word, sizeof word);
        break;
    case 2: /* all of the state */
        fill(agent, sizeof word * (words - MARKS));
        break;
    default: /* all of it */
        fill(agent, sizeof *agent);
    }
}

#ifdef KD_AGENT_MESSAGE_BYTES
static unsigned char *inbox, *outbox;

static void draw_inbox(void)
{
    int place;

    fill(inbox, KD_AGENT_HEARS * KD_AGENT_MESSAGE_BYTES);
    for (place = 0; place < KD_AGENT_HEARS; place++) {
        inbox[place * KD_AGENT_MESSAGE_BYTES] %= draw() % 2 ? 2 : 255;
    }
    fill(outbox, KD_AGENT_MESSAGE_BYTES);
}

/* What was said: all zeros, or a mark of 1 and, behind the last bit, zeros. After a fault nothing is said. */
static void check_said(int fault)
{
    const int rest = KD_AGENT_MESSAGE_BITS % 8;
    int byte;

    CHECK(outbox[0] == 0 || (outbox[0] == 1 && fault >= 0));
    CHECK(outbox[0] == 0 || rest == 0 || outbox[KD_AGENT_MESSAGE_BYTES - 1] >> rest == 0);
    for (byte = 1; byte < KD_AGENT_MESSAGE_BYTES; byte++) {
        CHECK(outbox[0] == 1 || outbox[byte] == 0);
    }
}
#endif

static int finite(const float *values, int count)
{
    int i;
    for (i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        if ((bits & 0x7f800000u) == 0x7f800000u) {
            return 0;
        }
    }
    return 1;
}

/* Saves and restores the memory, whole and damaged. */
static void remember(struct kd_agent *agent, unsigned char *saved)
{
    struct kd_agent before = *agent;
    size_t size = KD_AGENT_SAVED_BYTES;
    int fault = kd_agent_save(agent, saved);

    CHECK(memcmp(&before, agent, sizeof before) == 0);
    CHECK(fault == 0 || fault == KD_AGENT_BAD_STATE || fault == KD_AGENT_NOT_INITIALISED);
    if (fault == 0) {
        CHECK(kd_agent_restore(agent, saved, size) == 0 && agent->last == before.last);
        CHECK(memcmp(&before, agent, KD_AGENT_WIDTH * sizeof before.state[0]) == 0);
        before = *agent; /* what pads the state is not saved */
        if (draw() % 2) {
            saved[draw() % size] ^= (unsigned char)(1u << draw() % 8);
        } else {
            size = draw() % size;
        }
    } else {
        fill(saved, size);
    }
    fault = kd_agent_restore(agent, saved, size);
    CHECK(fault == KD_AGENT_BAD_SAVE || fault == KD_AGENT_OTHER_WEIGHTS || fault == KD_AGENT_NOT_INITIALISED);
    CHECK(memcmp(&before, agent, sizeof before) == 0);
}

#ifdef KD_AGENT_LOADABLE
static void *weights;
static long weights_size;

static void read_weights(const char *path)
{
    FILE *file = fopen(path, "rb");
    CHECK(file && fseek(file, 0, SEEK_END) == 0);
    weights_size = ftell(file);
    weights = malloc((size_t)weights_size);
    CHECK(weights && fseek(file, 0, SEEK_SET) == 0);
    CHECK(fread(weights, 1, (size_t)weights_size, file) == (size_t)weights_size && fclose(file) == 0);
}

/* Offers damaged weights, which must be refused, and what was loaded before must stay. */
static void load_damaged(void)
{
    const size_t kept = draw() % 2 ? (size_t)weights_size : draw() % (size_t)weights_size;
    unsigned char *copy = malloc(kept ? kept : 1);
    int fault;

    CHECK(copy);
    memcpy(copy, weights, kept);
    if (kept == (size_t)weights_size) {
        copy[draw() % kept] ^= (unsigned char)(1u << draw() % 8);
    }
    fault = kd_agent_load(copy, kept);
    CHECK(fault <= KD_AGENT_BAD_WEIGHTS && fault >= KD_AGENT_BIG_ENDIAN);
    free(copy);
}
#endif

int main(int argc, char **argv)
{
    long left = argc > 1 ? atol(argv[1]) : 1000, acted = 0;
    struct kd_agent *agent = malloc(sizeof *agent), *before = malloc(sizeof *before);
    float *features = malloc(KD_AGENT_INPUTS * sizeof *features);
    float *logits = malloc(KD_AGENT_ACTIONS * sizeof *logits), *untouched = malloc(KD_AGENT_ACTIONS * sizeof *logits);
    unsigned char *available = malloc(KD_AGENT_ACTIONS), *saved = malloc(KD_AGENT_SAVED_BYTES);
    struct kd_agent_generator *generator = malloc(sizeof *generator);

    CHECK(agent && before && features && logits && untouched && available && saved && generator);
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
#ifdef KD_AGENT_MESSAGE_BYTES
    inbox = malloc(KD_AGENT_HEARS * KD_AGENT_MESSAGE_BYTES);
    outbox = malloc(KD_AGENT_MESSAGE_BYTES);
    CHECK(inbox && outbox);
    draw_inbox();
#endif
    CHECK(kd_agent_size() == sizeof *agent);
    fill(agent, sizeof *agent); /* never initialised */
    fill(logits, KD_AGENT_ACTIONS * sizeof *logits);
    fill(generator, sizeof *generator);
#ifdef KD_AGENT_LOADABLE
    CHECK(argc > 3);
    kd_agent_init(agent);
    draw_features(features, 0);
    draw_available(available, 0);
    CHECK(kd_agent_act(agent, features, available RADIO) == KD_AGENT_NOT_INITIALISED);
    read_weights(argv[3]);
    CHECK(kd_agent_test() == KD_AGENT_OTHER_WEIGHTS);
    CHECK(kd_agent_load(weights, (size_t)weights_size) == 0);
#endif
    CHECK(kd_agent_test() == 0);
    for (; left > 0; left--) {
        int action, fault;

        if (draw() % 8 == 0) {
            kd_agent_init(agent);
        } else if (draw() % 8 == 0) {
            damage(agent);
        }
        if (draw() % 64 == 0) {
            fill(generator, sizeof *generator);
        } else if (draw() % 64 == 0) {
            kd_agent_seed(generator, draw(), draw());
        }
#ifdef KD_AGENT_LOADABLE
        if (draw() % 64 == 0) {
            load_damaged();
        }
#endif
        draw_features(features, draw() % 6);
        draw_available(available, draw() % 5);
#ifdef KD_AGENT_MESSAGE_BYTES
        draw_inbox();
#endif
        memcpy(before, agent, sizeof *agent);
        action = draw() % 2 ? kd_agent_act(agent, features, available RADIO)
                            : kd_agent_sample(agent, features, available, generator RADIO);
        CHECK(action >= KD_AGENT_NOT_INITIALISED && action < KD_AGENT_ACTIONS);
#ifdef KD_AGENT_MESSAGE_BYTES
        check_said(action);
#endif
        if (action >= 0) {
            CHECK(available[action] && agent->last == action);
            acted++;
        } else {
            CHECK(memcmp(before, agent, sizeof *agent) == 0);
        }
        action = kd_agent_on_fault(agent, available);
        CHECK(action == KD_AGENT_NO_ACTION || (action >= 0 && action < KD_AGENT_ACTIONS && available[action]));
        memcpy(before, agent, sizeof *agent);
        memcpy(untouched, logits, KD_AGENT_ACTIONS * sizeof *logits);
        fault = kd_agent_logits(agent, features, logits RADIO);
        CHECK(fault == 0 || (fault <= KD_AGENT_BAD_FEATURE && fault >= KD_AGENT_NOT_INITIALISED));
#ifdef KD_AGENT_MESSAGE_BYTES
        check_said(fault);
#endif
        if (fault == 0) {
            CHECK(finite(logits, KD_AGENT_ACTIONS));
        } else {
            CHECK(memcmp(before, agent, sizeof *agent) == 0);
            CHECK(memcmp(untouched, logits, KD_AGENT_ACTIONS * sizeof *logits) == 0);
        }
        fault = kd_agent_last_logits(agent, logits);
        CHECK(fault ? fault == KD_AGENT_BAD_STATE || fault == KD_AGENT_NOT_INITIALISED : finite(logits, KD_AGENT_ACTIONS));
        remember(agent, saved);
    }
    CHECK(kd_agent_test() == 0);
    printf("%ld\n", acted);
#ifdef KD_AGENT_LOADABLE
    free(weights);
#endif
#ifdef KD_AGENT_MESSAGE_BYTES
    free(inbox);
    free(outbox);
#endif
    free(saved);
    free(generator);
    free(agent);
    free(before);
    free(features);
    free(logits);
    free(untouched);
    free(available);
    return 0;
}
