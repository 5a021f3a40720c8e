/* Calls every function on states of the library `learner` in right and wrong ways: see support.rs for what it computes. Needs
 * no libc, so that it runs freestanding too. Exits with 0 when all is as the header says, else with the number of the check. */
#include "learner.h"

#define ROW 64
static _Alignas(64) unsigned char workspace[LEARNER_WORKSPACE_BYTES];
static _Alignas(64) unsigned char block[LEARNER_STATE_BYTES + 64], other[LEARNER_STATE_BYTES + 64];
static unsigned char saved[LEARNER_STATE_BYTES + 1];
static float x[4 * ROW], target[ROW], y[4 * ROW], sum[ROW];
static const float rate = 0.5f;

static float weight(int j) { return 0.3f + (float)j * 0.7f; }

static int same(const void *a, const void *b, uint64_t bytes) {
    const unsigned char *p = a, *q = b;
    uint64_t i;
    for (i = 0; i < bytes; i++)
        if (p[i] != q[i])
            return 0;
    return 1;
}

static int text(const char *a, const char *b) {
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        number++;                                                                                                      \
        if (!(condition))                                                                                              \
            return number;                                                                                             \
    } while (0)

static nncc_tensor tensor(void *data, const int64_t *shape, uint32_t rank) {
    nncc_tensor t = {0};
    t.data = data;
    t.shape = shape;
    t.rank = rank;
    t.dtype = NNCC_F32;
    return t;
}

static int check(void) {
    int number = 0, i;
    nncc_state state;
    nncc_options options = {0};
    nncc_context *context;
    nncc_state_header *header = (nncc_state_header *)block;
    float w[ROW], *in_block;
    const void *inputs[3] = {x, target, &rate};
    void *outputs[2] = {y, sum};
    const int64_t rows[2] = {4, ROW}, row[2] = {1, ROW};
    nncc_tensor in[3], out[2];
    uint32_t set;

    for (i = 0; i < 4 * ROW; i++)
        x[i] = (float)i;
    for (i = 0; i < ROW; i++)
        target[i] = 2;

    /* What it says of itself. */
    CHECK(learner_set_count() == 3 && LEARNER_STEP_SET == 0 && LEARNER_EVALUATE_SET == 1 && LEARNER_INFER_SET == 2);
    CHECK(learner_set_purpose(0) == NNCC_PURPOSE_STEP && learner_set_purpose(1) == NNCC_PURPOSE_EVALUATE);
    CHECK(learner_set_purpose(2) == NNCC_PURPOSE_INFER && learner_set_purpose(3) == NNCC_PURPOSE_INFER);
    CHECK(learner_input_count() == 3 && learner_output_count() == 2);
    CHECK(learner_input(0, 2, &in[0]) == NNCC_OK && text(in[0].name, "rate"));
    CHECK(learner_input(1, 2, &in[0]) == NNCC_ERROR_INDEX && learner_input(2, 1, &in[0]) == NNCC_ERROR_INDEX);
    CHECK(learner_output(1, 1, &in[0]) == NNCC_OK && learner_output(2, 1, &in[0]) == NNCC_ERROR_INDEX);
    CHECK(learner_state_size() == LEARNER_STATE_BYTES && learner_state_count() == 2 && LEARNER_STATE_COUNT == 2);
    CHECK(learner_state(2, &state) == NNCC_ERROR_INDEX && learner_state(0, 0) == NNCC_ERROR_NULL);
    CHECK(learner_state(1, &state) == NNCC_OK && text(state.tensor.name, "m/w") && state.role == NNCC_STATE_MOMENT);
    CHECK(state.tensor.bytes == 12 && state.tensor.rank == 1 && state.tensor.dtype == NNCC_F32 && !state.tensor.data);
    CHECK(learner_state(0, &state) == NNCC_OK && text(state.tensor.name, "w") && state.role == NNCC_STATE_PARAMETER);
    CHECK(state.tensor.shape[0] == ROW && state.offset % 64 == 0 && state.offset >= sizeof *header);

    /* A block is made. */
    CHECK(learner_init_state(0, sizeof block, 7) == NNCC_ERROR_NULL);
    CHECK(learner_init_state(block, LEARNER_STATE_BYTES - 1, 7) == NNCC_ERROR_SIZE);
    CHECK(learner_init_state(block + 8, LEARNER_STATE_BYTES, 7) == NNCC_ERROR_ALIGN);
    for (i = 0; i < (int)sizeof block; i++)
        block[i] = 0xa5;
    CHECK(learner_init_state(block, LEARNER_STATE_BYTES, 7) == NNCC_OK);
    CHECK(header->magic == NNCC_STATE_MAGIC && header->version == 1 && header->bytes == LEARNER_STATE_BYTES);
    CHECK(header->seed == 7 && header->steps == 0 && header->hash != 0 && header->reserved == 0);
    in_block = (float *)(block + state.offset);
    for (i = 0; i < ROW; i++)
        CHECK(in_block[i] == weight(i));
    learner_state(1, &state);
    for (i = 0; i < 3; i++)
        CHECK(((float *)(block + state.offset))[i] == 0.25f);
    CHECK(((float *)(block + state.offset))[3] == 0 && block[LEARNER_STATE_BYTES - 1] == 0);
    CHECK(block[LEARNER_STATE_BYTES] == 0xa5);

    /* It is attached. */
    options.struct_size = sizeof options;
    options.workspace = workspace;
    options.workspace_bytes = sizeof workspace;
    CHECK(learner_create(&options, &context) == NNCC_OK);
    CHECK(learner_run_context(context, 0, inputs, outputs) == NNCC_ERROR_STATE);
    CHECK(text(learner_last_error(context), "the context has no block of states: nncc_attach_state gives it one"));
    CHECK(learner_get_state(context, "w", w, sizeof w) == NNCC_ERROR_STATE);
    CHECK(learner_save_state(context, saved, sizeof saved) == NNCC_ERROR_STATE);
    CHECK(learner_load_state(context, block, LEARNER_STATE_BYTES) == NNCC_ERROR_STATE);
    CHECK(learner_attach_state(0, block, LEARNER_STATE_BYTES) == NNCC_ERROR_NULL);
    CHECK(learner_attach_state(context, block, LEARNER_STATE_BYTES - 1) == NNCC_ERROR_SIZE);
    CHECK(learner_attach_state(context, block, 63) == NNCC_ERROR_SIZE);
    for (i = 0; i < (int)sizeof block - 8; i++)
        other[i + 8] = block[i];
    CHECK(learner_attach_state(context, other + 8, LEARNER_STATE_BYTES) == NNCC_ERROR_ALIGN);
    CHECK(text(learner_last_error(context), "the block of states must be aligned to 64 bytes"));
    header->hash++;
    CHECK(learner_attach_state(context, block, LEARNER_STATE_BYTES) == NNCC_ERROR_STATE);
    header->hash--;
    header->bytes--;
    CHECK(learner_attach_state(context, block, LEARNER_STATE_BYTES) == NNCC_ERROR_STATE);
    header->bytes++;
    header->version++;
    CHECK(learner_attach_state(context, block, LEARNER_STATE_BYTES) == NNCC_ERROR_STATE);
    header->version--;
    header->magic++;
    CHECK(learner_attach_state(context, block, LEARNER_STATE_BYTES) == NNCC_ERROR_STATE);
    header->magic--;
    CHECK(learner_run_context(context, 0, inputs, outputs) == NNCC_ERROR_STATE);
    CHECK(learner_attach_state(context, block, LEARNER_STATE_BYTES) == NNCC_OK);

    /* A step changes the states behind what reads them; the others do not. */
    CHECK(learner_run_context(context, LEARNER_STEP_SET, inputs, outputs) == NNCC_OK);
    for (i = 0; i < ROW; i++)
        CHECK(sum[i] == 2 * weight(i) && in_block[i] == weight(i) + weight(i));
    CHECK(header->steps == 1);
    CHECK(learner_run_context(context, LEARNER_EVALUATE_SET, inputs, outputs) == NNCC_OK);
    for (i = 0; i < ROW; i++)
        CHECK(sum[i] == 2 * in_block[i] && in_block[i] == 2 * weight(i));
    CHECK(learner_run_context(context, LEARNER_INFER_SET, inputs, outputs) == NNCC_OK);
    CHECK(header->steps == 1 && y[5] == x[5] * in_block[5]);
    CHECK(learner_run_context(context, 3, inputs, outputs) == NNCC_ERROR_SET);

    /* The set is found by what is given. */
    in[0] = tensor(x, rows, 2), in[1] = tensor(target, row, 2), in[2] = tensor((void *)&rate, 0, 0);
    out[0] = tensor(y, rows, 2), out[1] = tensor(sum, row, 2);
    for (i = 0; i < 3; i++)
        CHECK(learner_find_set(in, 3 - (uint32_t)i, &set) == NNCC_OK && set == (uint32_t)i);
    CHECK(learner_find_set(in, 4, &set) == NNCC_ERROR_COUNT && learner_find_set(in, 0, &set) == NNCC_ERROR_COUNT);
    CHECK(learner_run_tensors(context, in, 3, out, 2) == NNCC_OK && header->steps == 2);
    CHECK(learner_run_tensors(context, in, 2, out, 2) == NNCC_OK && header->steps == 2);
    y[5] = 0;
    CHECK(learner_run_tensors(context, in, 1, out, 1) == NNCC_OK && y[5] == x[5] * in_block[5]);
    CHECK(learner_run_tensors(context, in, 1, out, 2) == NNCC_ERROR_COUNT);
    CHECK(learner_run_tensors(context, in, 2, 0, 2) == NNCC_ERROR_NULL);
    in[1].rank = 1;
    CHECK(learner_run_tensors(context, in, 2, out, 2) == NNCC_ERROR_SHAPE);
    CHECK(text(learner_last_error(context), "input 1 \"target\": the shape must be [1, 64]"));

    /* States by name. */
    CHECK(learner_get_state(context, "w", w, sizeof w) == NNCC_OK && same(w, in_block, sizeof w));
    CHECK(learner_get_state(context, "w", w, sizeof w - 1) == NNCC_ERROR_SIZE);
    CHECK(learner_get_state(context, "w2", w, sizeof w) == NNCC_ERROR_INDEX);
    CHECK(text(learner_last_error(context), "no state has this name"));
    CHECK(learner_get_state(context, "", w, sizeof w) == NNCC_ERROR_INDEX);
    CHECK(learner_get_state(context, "m", w, sizeof w) == NNCC_ERROR_INDEX);
    CHECK(learner_get_state(context, 0, w, sizeof w) == NNCC_ERROR_NULL);
    CHECK(learner_set_state(context, "w", 0, sizeof w) == NNCC_ERROR_NULL);
    w[1] = 42;
    CHECK(learner_set_state(context, "m/w", w, 11) == NNCC_ERROR_SIZE);
    CHECK(learner_set_state(context, "m/w", w, 12) == NNCC_OK && same(block + state.offset, w, 12));
    CHECK(((float *)(block + state.offset))[3] == 0);

    /* Saved and loaded at any address; what is none is refused and changes nothing. */
    CHECK(learner_save_state(context, saved + 1, LEARNER_STATE_BYTES - 1) == NNCC_ERROR_SIZE);
    CHECK(learner_save_state(context, 0, LEARNER_STATE_BYTES) == NNCC_ERROR_NULL);
    CHECK(learner_save_state(context, saved + 1, LEARNER_STATE_BYTES) == NNCC_OK);
    CHECK(same(saved + 1, block, LEARNER_STATE_BYTES));
    CHECK(learner_run_context(context, LEARNER_STEP_SET, inputs, outputs) == NNCC_OK && header->steps == 3);
    CHECK(learner_load_state(context, saved + 1, LEARNER_STATE_BYTES - 1) == NNCC_ERROR_SIZE && header->steps == 3);
    CHECK(learner_load_state(context, saved + 1, 0) == NNCC_ERROR_SIZE && header->steps == 3);
    CHECK(learner_load_state(context, 0, LEARNER_STATE_BYTES) == NNCC_ERROR_NULL && header->steps == 3);
    saved[1 + 24]++;
    CHECK(learner_load_state(context, saved + 1, LEARNER_STATE_BYTES) == NNCC_ERROR_STATE && header->steps == 3);
    saved[1 + 24]--;
    saved[1]++;
    CHECK(learner_load_state(context, saved + 1, LEARNER_STATE_BYTES) == NNCC_ERROR_STATE && header->steps == 3);
    saved[1]--;
    CHECK(learner_load_state(context, saved + 1, LEARNER_STATE_BYTES) == NNCC_OK && header->steps == 2);
    CHECK(same(saved + 1, block, LEARNER_STATE_BYTES));
    CHECK(learner_attach_state(context, 0, 0) == NNCC_OK);
    CHECK(learner_run_context(context, LEARNER_INFER_SET, inputs, outputs) == NNCC_ERROR_STATE);
    learner_destroy(context);
    CHECK(learner_attach_state(context, block, LEARNER_STATE_BYTES) == NNCC_ERROR_CONTEXT);
    return 0;
}

#include "start.h"
