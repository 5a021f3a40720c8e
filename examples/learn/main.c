/*
 * Learns on its own, as a device in the field would: makes noisy pictures, learns to tell which quadrant is bright, saves what
 * it has learnt, goes on, loads it again, and infers with it.
 *
 *     nncc new lenet5 --classes 4 --input 1x12x12 -o target/lenet5.onnx
 *     nncc target/lenet5.onnx --train --optim adamw --batch-size 16 --freestanding -o target/lenet5_train.a
 *     cc -std=c11 -O2 -I target examples/learn/main.c target/lenet5_train.a -o target/learn
 *     target/learn
 *
 * All memory is static: there is no malloc, here or in the library. Without libc (-ffreestanding) nothing is printed, and the
 * program is the function `check`, which gives 0 when all went well.
 */
#include "lenet5_train.h"

#if __STDC_HOSTED__
#include <stdio.h>
#define TELL(...) printf(__VA_ARGS__)
#else
#define TELL(...) (void)0
#endif

#define SIDE 12
#define PIXELS (SIDE * SIDE)
#define CLASSES 4
#define BATCH 16
#define STEPS 200
#define SAMPLES 400

static _Alignas(64) unsigned char workspace[LENET5_TRAIN_WORKSPACE_BYTES];
static _Alignas(64) unsigned char states[LENET5_TRAIN_STATE_BYTES];
static unsigned char saved[LENET5_TRAIN_STATE_BYTES]; /* what would go into flash memory */
static float pictures[BATCH * PIXELS], logits[BATCH * CLASSES];
static int64_t classes[BATCH];

/* What the device sees: noise, and in one quadrant more light. Gives the quadrant. */
static int64_t look(float *picture, uint32_t *random) {
    int64_t bright;
    int i;
    *random = *random * 1664525u + 1013904223u;
    bright = *random >> 30;
    for (i = 0; i < PIXELS; i++) {
        int quadrant = i / SIDE / (SIDE / 2) * 2 + i % SIDE / (SIDE / 2);
        *random = *random * 1664525u + 1013904223u;
        picture[i] = (float)(*random >> 8) / (1 << 24) + (quadrant == bright ? 0.3f : 0.0f);
    }
    return bright;
}

/* Learns from one batch; gives the loss, or a negative number when the library refuses. */
static float learn(nncc_context *context, uint32_t *random, float rate) {
    const void *inputs[3] = {pictures, classes, &rate};
    float loss;
    void *outputs[2] = {logits, &loss};
    int i;
    for (i = 0; i < BATCH; i++)
        classes[i] = look(pictures + i * PIXELS, random);
    return lenet5_train_run_context(context, LENET5_TRAIN_STEP_SET, inputs, outputs) == NNCC_OK ? loss : -1;
}

/* How many of SAMPLES pictures, seen one by one, are told rightly. */
static int right(nncc_context *context, uint32_t random) {
    const void *inputs[1] = {pictures};
    void *outputs[1] = {logits};
    int i, k, count = 0;
    for (i = 0; i < SAMPLES; i++) {
        int64_t bright = look(pictures, &random);
        int best = 0;
        if (lenet5_train_run_context(context, LENET5_TRAIN_INFER_SET, inputs, outputs) != NNCC_OK)
            return -1;
        for (k = 1; k < CLASSES; k++)
            if (logits[k] > logits[best])
                best = k;
        count += best == bright;
    }
    return count;
}

static int check(void) {
    const nncc_state_header *header = (const nncc_state_header *)states;
    nncc_options options = {0};
    nncc_context *context;
    uint32_t random = 1, step;
    int before, after;
    float first, bias[CLASSES];

    options.struct_size = sizeof options;
    options.workspace = workspace;
    options.workspace_bytes = sizeof workspace;
    if (lenet5_train_create(&options, &context) != NNCC_OK)
        return 1;
    if (lenet5_train_init_state(states, sizeof states, 1) != NNCC_OK ||
        lenet5_train_attach_state(context, states, sizeof states) != NNCC_OK)
        return 2;
    before = right(context, 7);
    TELL("%d of %d right before learning\n", before, SAMPLES);

    for (step = 0; step < STEPS; step++) {
        float loss = learn(context, &random, 0.003f);
        if (!(loss >= 0))
            return 3;
        if (step % 40 == 39)
            TELL("step %3u  loss %.4f\n", step + 1, (double)loss);
    }
    after = right(context, 7);
    TELL("%d of %d right after %d steps\n", after, SAMPLES, (int)header->steps);
    if (before < 0 || before > SAMPLES / 2 || after < SAMPLES * 98 / 100 || header->steps != STEPS)
        return 4;

    /* What is learnt from here on is thrown away again: the same steps give the same bits from what was saved. */
    if (lenet5_train_save_state(context, saved, sizeof saved) != NNCC_OK)
        return 5;
    step = random;
    first = learn(context, &random, 0.003f);
    if (lenet5_train_load_state(context, saved, sizeof saved) != NNCC_OK || header->steps != STEPS)
        return 6;
    random = step;
    if (learn(context, &random, 0.003f) != first || first < 0)
        return 7;
    saved[24] ^= 1; /* the hash: a file of another model */
    if (lenet5_train_load_state(context, saved, sizeof saved) != NNCC_ERROR_STATE)
        return 8;
    TELL("another model's file: %s\n", lenet5_train_last_error(context));

    if (lenet5_train_get_state(context, "fc3.bias", bias, sizeof bias) != NNCC_OK)
        return 9;
    TELL("fc3.bias: %.4f %.4f %.4f %.4f\n", (double)bias[0], (double)bias[1], (double)bias[2], (double)bias[3]);
    lenet5_train_destroy(context);
    return 0;
}

#if __STDC_HOSTED__
int main(void) { return check(); }
#else
#include START /* the start of a program without libc, which calls `check` */
#endif
