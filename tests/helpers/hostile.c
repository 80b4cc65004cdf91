/*
 * Gives the C of an agent what it must survive: features of any bits, a damaged or uninitialised memory, any
 * availability. Compiled beside the program, with a sanitizer; every buffer is a block of its own on the heap.
 *
 *     hostile INPUTS SEED [WEIGHTS, for a program that loads them]
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
        memcpy(bytes + sizeof word * (draw() % (words - 2)), &word, sizeof word);
        break;
    case 2: /* all of the state */
        fill(agent, sizeof word * (words - 2));
        break;
    default: /* all of it */
        fill(agent, sizeof *agent);
    }
}

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

/* Draws with a generator of any bits; saves the memory, and restores it from what it saved and from damaged bytes. */
static void draw_and_save(struct kd_agent *agent, const float *features, const unsigned char *available, float *logits)
{
    unsigned char *saved = malloc(KD_AGENT_SAVED_BYTES);
    struct kd_agent *before = malloc(sizeof *before);
    struct kd_agent_generator generator;
    const size_t cut = draw() % KD_AGENT_SAVED_BYTES;
    int action;

    CHECK(saved && before);
    fill(&generator, sizeof generator);
    memcpy(before, agent, sizeof *agent);
    action = kd_agent_sample(agent, features, available, &generator);
    CHECK(action >= KD_AGENT_NOT_INITIALISED && action < KD_AGENT_ACTIONS);
    CHECK(action >= 0 ? available[action] && agent->last == action : memcmp(before, agent, sizeof *agent) == 0);
    if (kd_agent_last_logits(agent, logits) == 0) {
        CHECK(finite(logits, KD_AGENT_ACTIONS));
    }
    memcpy(before, agent, sizeof *agent);
    if (kd_agent_save(agent, saved) == 0) {
        const int whole = kd_agent_restore(agent, saved, KD_AGENT_SAVED_BYTES);
        CHECK(whole == (agent->last >= -1 && agent->last < KD_AGENT_ACTIONS ? 0 : KD_AGENT_BAD_SAVE));
        /* What fills the state up in int8 is not saved. */
        CHECK(memcmp(before->state, agent->state, KD_AGENT_WIDTH * sizeof *agent->state) == 0);
        CHECK(before->ready == agent->ready && before->last == agent->last);
        memcpy(before, agent, sizeof *agent);
        saved[cut] ^= (unsigned char)(1u << draw() % 8);
    } else {
        fill(saved, KD_AGENT_SAVED_BYTES);
    }
    CHECK(kd_agent_restore(agent, saved, KD_AGENT_SAVED_BYTES) != 0);
    /* A block of just these bytes: nothing may be read behind them. */
    saved = realloc(saved, cut + 1);
    CHECK(saved && kd_agent_restore(agent, saved, cut) != 0);
    CHECK(memcmp(before, agent, sizeof *agent) == 0);
    free(saved);
    free(before);
}

#ifdef KD_AGENT_LOADABLE
static unsigned char *file;

/* Reads the file of weights, and loads it. */
static void load_file(const char *path)
{
    FILE *in = fopen(path, "rb");
    file = malloc(KD_AGENT_WEIGHTS_BYTES);
    CHECK(in && file && fread(file, 1, KD_AGENT_WEIGHTS_BYTES, in) == KD_AGENT_WEIGHTS_BYTES);
    fclose(in);
    CHECK(kd_agent_load(file, KD_AGENT_WEIGHTS_BYTES) == 0);
}

/* Loads a copy that is cut, damaged or misaligned, in a block of just its bytes. */
static void load_damaged(void)
{
    const size_t kind = draw() % 3, size = kind == 0 ? draw() % KD_AGENT_WEIGHTS_BYTES : KD_AGENT_WEIGHTS_BYTES;
    const size_t offset = kind == 1 ? 1 + draw() % 3 : 0;
    unsigned char *copy = malloc(size + offset + (size + offset == 0));

    CHECK(copy);
    memcpy(copy + offset, file, size);
    if (kind == 2) {
        copy[draw() % size] ^= (unsigned char)(1u << draw() % 8);
    }
    CHECK(kd_agent_load(copy + offset, size) != 0);
    free(copy);
}
#endif

int main(int argc, char **argv)
{
    long left = argc > 1 ? atol(argv[1]) : 1000, acted = 0;
    struct kd_agent *agent = malloc(sizeof *agent), *before = malloc(sizeof *before);
    float *features = malloc(KD_AGENT_INPUTS * sizeof *features);
    float *logits = malloc(KD_AGENT_ACTIONS * sizeof *logits), *untouched = malloc(KD_AGENT_ACTIONS * sizeof *logits);
    unsigned char *available = malloc(KD_AGENT_ACTIONS);

    CHECK(agent && before && features && logits && untouched && available);
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    CHECK(kd_agent_size() == sizeof *agent);
#ifdef KD_AGENT_LOADABLE
    CHECK(argc > 3);
    load_file(argv[3]);
#endif
    fill(agent, sizeof *agent); /* never initialised */
    fill(logits, KD_AGENT_ACTIONS * sizeof *logits);
    for (; left > 0; left--) {
        int action, fault;

        if (draw() % 8 == 0) {
            kd_agent_init(agent);
        } else if (draw() % 8 == 0) {
            damage(agent);
        }
        draw_features(features, draw() % 6);
        draw_available(available, draw() % 5);
        memcpy(before, agent, sizeof *agent);
        action = kd_agent_act(agent, features, available);
        CHECK(action >= KD_AGENT_NOT_INITIALISED && action < KD_AGENT_ACTIONS);
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
        if (draw() % 4 == 0) {
            draw_and_save(agent, features, available, logits);
#ifdef KD_AGENT_LOADABLE
            load_damaged();
#endif
            memcpy(before, agent, sizeof *agent);
            memcpy(untouched, logits, KD_AGENT_ACTIONS * sizeof *logits);
        }
        fault = kd_agent_logits(agent, features, logits);
        CHECK(fault == 0 || (fault <= KD_AGENT_BAD_FEATURE && fault >= KD_AGENT_NOT_INITIALISED));
        if (fault == 0) {
            CHECK(finite(logits, KD_AGENT_ACTIONS));
        } else {
            CHECK(memcmp(before, agent, sizeof *agent) == 0);
            CHECK(memcmp(untouched, logits, KD_AGENT_ACTIONS * sizeof *logits) == 0);
        }
    }
    printf("%ld\n", acted);
    free(agent);
    free(before);
    free(features);
    free(logits);
    free(untouched);
    free(available);
#ifdef KD_AGENT_LOADABLE
    free(file);
#endif
    return 0;
}
