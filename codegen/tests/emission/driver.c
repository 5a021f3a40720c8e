/* Calls every function of the library `affine` in right and wrong ways. Exits with 0 when all is as the header says. */
#define _GNU_SOURCE
#include "affine.h"
#include <fenv.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROW 64
#define BIG 9
static int failures;
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("line %d: %s\n", __LINE__, #condition);                                                             \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

/* Allocations are counted by standing before libc's. */
extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *block, size_t bytes);
static int allocations;
void *malloc(size_t bytes) {
    __atomic_add_fetch(&allocations, 1, __ATOMIC_SEQ_CST);
    return __libc_malloc(bytes);
}
void *calloc(size_t count, size_t bytes) {
    __atomic_add_fetch(&allocations, 1, __ATOMIC_SEQ_CST);
    return __libc_calloc(count, bytes);
}
void *realloc(void *block, size_t bytes) {
    __atomic_add_fetch(&allocations, 1, __ATOMIC_SEQ_CST);
    return __libc_realloc(block, bytes);
}

static float x[BIG * ROW], want[BIG * ROW];

static void fill(void) {
    for (int i = 0; i < BIG * ROW; i++) {
        int j = i % ROW;
        x[i] = (float)(i % 37) * 0.37f - 3.0f;
        volatile float weight = 0.3f + (float)j * 0.7f, bias = ((float)j - 31.0f) * 0.1f;
        volatile float product = x[i] * weight;
        want[i] = product + bias;
    }
}

static int right(const float *y, int rows) { return memcmp(y, want, sizeof(float) * ROW * (size_t)rows) == 0; }

static nncc_options plain_options(void) {
    nncc_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    return options;
}

static int32_t run_on(nncc_context *context, uint32_t set, float *y) {
    const void *inputs[1] = {x};
    void *outputs[1];
    outputs[0] = y;
    return affine_run_context(context, set, inputs, outputs);
}

static void describes_itself(void) {
    nncc_tensor tensor;
    nncc_step step;
    nncc_bounds bounds;
    CHECK(affine_abi_version() == NNCC_ABI_VERSION);
    CHECK(strcmp(affine_model_name(), "affine") == 0);
    CHECK(affine_input_count() == AFFINE_INPUT_COUNT && affine_output_count() == AFFINE_OUTPUT_COUNT);
    CHECK(affine_set_count() == 2 && AFFINE_SET_COUNT == 2);
    CHECK(affine_input(1, 0, &tensor) == NNCC_OK);
    CHECK(strcmp(tensor.name, "x") == 0 && tensor.dtype == NNCC_F32 && tensor.rank == 2 && tensor.data == NULL);
    CHECK(tensor.shape[0] == 9 && tensor.shape[1] == ROW && tensor.bytes == sizeof x);
    CHECK(tensor.layout == NNCC_LAYOUT_ROW_MAJOR);
    CHECK(affine_output(0, 0, &tensor) == NNCC_OK);
    CHECK(strcmp(tensor.name, "y") == 0 && tensor.shape[0] == 4 && tensor.bytes == 4 * ROW * sizeof(float));
    CHECK(affine_output(2, 0, &tensor) == NNCC_ERROR_SET);
    CHECK(affine_output(0, 1, &tensor) == NNCC_ERROR_INDEX);
    CHECK(affine_input(0, 0, NULL) == NNCC_ERROR_NULL);
    CHECK(affine_level_count() >= 1 && affine_level_name(affine_level_count()) == NULL);
    CHECK(affine_level_name(0) != NULL && affine_best_level() >= 0);
    CHECK(affine_step_count(0, 0) == 2 && affine_step_count(2, 0) == 0 && affine_step_count(0, 9) == 0);
    CHECK(affine_step(1, 0, 1, &step) == NNCC_OK);
    CHECK(strcmp(step.name, "add") == 0 && strcmp(step.op, "add") == 0 && strncmp(step.kernel, "row_add__", 9) == 0);
    CHECK(step.tasks == 9 && step.macs == 1000000 && step.bytes == 3 * sizeof x);
    CHECK(affine_step(1, 0, 2, &step) == NNCC_ERROR_INDEX);
    CHECK(affine_step_weights(1, 0, 1) == sizeof x && affine_step_weights(1, 0, 2) == 0);
    CHECK(affine_step_weights(2, 0, 0) == 0 && affine_step_weights(0, 9, 0) == 0);
    CHECK(affine_step_cycles(1, 0, 1) == 1234 && affine_step_moved(1, 0, 1) == 2 * sizeof x);
    CHECK(affine_step_cycles(1, 0, 2) == 0 && affine_step_moved(2, 0, 0) == 0);
    CHECK(affine_bounds(1, 0, &bounds) == NNCC_OK);
    CHECK(bounds.arena_bytes == 64 + sizeof x && bounds.arena_bytes == AFFINE_ARENA_BYTES);
    CHECK(bounds.scratch_bytes == 256 && AFFINE_SCRATCH_BYTES == 256);
    CHECK(bounds.code_bytes == AFFINE_CODE_BYTES && bounds.weight_bytes == AFFINE_WEIGHT_BYTES);
    CHECK(bounds.weight_bytes == 512 && bounds.macs == 2000000 && bounds.stack_bytes <= AFFINE_STACK_BYTES);
    CHECK(bounds.imports == AFFINE_IMPORTS);
    CHECK(affine_workspace_size(NNCC_ANY_SET, 1) == AFFINE_WORKSPACE_BYTES);
    CHECK(affine_workspace_size(0, 1) < affine_workspace_size(1, 1));
    CHECK(affine_workspace_size(1, 0) == affine_workspace_size(1, 1));
    CHECK(affine_workspace_size(2, 1) == 0);
    CHECK(strcmp(affine_error_message(NNCC_OK), "no error") == 0);
    CHECK(strcmp(affine_error_message(99), affine_error_message(-1)) == 0);
}

static void runs(void) {
    float y[BIG * ROW];
    nncc_context *context = NULL;
    CHECK(affine_run(x, y) == NNCC_OK && right(y, 4));
    CHECK(affine_create(NULL, &context) == NNCC_OK);
    memset(y, 0, sizeof y);
    CHECK(run_on(context, 1, y) == NNCC_OK && right(y, 9));
    memset(y, 0, sizeof y);
    CHECK(run_on(context, 0, y) == NNCC_OK && right(y, 4) && y[4 * ROW] == 0);
    CHECK(affine_context_level(context) == affine_best_level());
    affine_destroy(context);
    affine_destroy(NULL);
}

static void refuses(void) {
    float y[BIG * ROW];
    nncc_context *context = NULL;
    nncc_options options = plain_options();
    int64_t small[2] = {4, ROW}, big[2] = {9, ROW}, odd[2] = {5, ROW};
    nncc_tensor in, out;
    uint32_t set = 7;
    const void *no_input[1] = {NULL};
    const void *crooked[1];
    void *outputs[1];
    outputs[0] = y;
    crooked[0] = (const char *)x + 1;
    CHECK(affine_create(NULL, NULL) == NNCC_ERROR_NULL);
    options.struct_size = 8;
    CHECK(affine_create(&options, &context) == NNCC_ERROR_OPTIONS && context == NULL);
    options = plain_options();
    options.threads = 100000;
    CHECK(affine_create(&options, &context) == NNCC_ERROR_OPTIONS);
    CHECK(affine_create(NULL, &context) == NNCC_OK);
    CHECK(affine_run_context(NULL, 0, no_input, outputs) == NNCC_ERROR_NULL);
    CHECK(run_on(context, 2, y) == NNCC_ERROR_SET);
    CHECK(strcmp(affine_last_error(context), "no such shape set") == 0);
    CHECK(affine_run_context(context, 0, no_input, outputs) == NNCC_ERROR_NULL);
    CHECK(strcmp(affine_last_error(context), "input 0 \"x\": the pointer is null") == 0);
    CHECK(affine_run_context(context, 0, NULL, outputs) == NNCC_ERROR_NULL);
    CHECK(affine_run_context(context, 0, crooked, outputs) == NNCC_ERROR_ALIGN);
    CHECK(strcmp(affine_last_error(context), "input 0 \"x\": the buffer must be aligned to 4 bytes, for f32") == 0);
    CHECK(affine_run_context(context, 0, (const void *const *)outputs, NULL) == NNCC_ERROR_NULL);
    CHECK(strcmp(affine_last_error(context), "output 0 \"y\": the pointer is null") == 0);

    memset(&in, 0, sizeof in);
    in.data = x;
    in.dtype = NNCC_F32;
    in.rank = 2;
    in.shape = big;
    out = in;
    out.data = y;
    memset(y, 0, sizeof y);
    CHECK(affine_run_tensors(context, &in, 1, &out, 1) == NNCC_OK && right(y, 9));
    CHECK(affine_find_set(&in, 1, &set) == NNCC_OK && set == 1);
    CHECK(affine_find_set(&in, 2, &set) == NNCC_ERROR_COUNT);
    CHECK(affine_run_tensors(context, &in, 2, &out, 1) == NNCC_ERROR_COUNT);
    CHECK(affine_run_tensors(context, NULL, 1, &out, 1) == NNCC_ERROR_NULL);
    out.dtype = NNCC_F64;
    CHECK(affine_run_tensors(context, &in, 1, &out, 1) == NNCC_ERROR_DTYPE);
    CHECK(strcmp(affine_last_error(context), "output 0 \"y\": the element type must be f32") == 0);
    out.dtype = NNCC_F32;
    in.shape = odd;
    CHECK(affine_run_tensors(context, &in, 1, &out, 1) == NNCC_ERROR_SHAPE);
    CHECK(strcmp(affine_last_error(context), "input 0 \"x\": the shape must be [4, 64] or [9, 64]") == 0);
    CHECK(affine_find_set(&in, 1, &set) == NNCC_ERROR_SHAPE);
    in.shape = small;
    CHECK(affine_run_tensors(context, &in, 1, &out, 1) == NNCC_ERROR_SHAPE);
    CHECK(strcmp(affine_last_error(context), affine_error_message(NNCC_ERROR_SHAPE)) == 0);
    in.rank = 1;
    CHECK(affine_run_tensors(context, &in, 1, &out, 1) == NNCC_ERROR_SHAPE);
    in.rank = 2;
    in.shape = big;
    out.bytes = sizeof y - 1;
    CHECK(affine_run_tensors(context, &in, 1, &out, 1) == NNCC_ERROR_SIZE);
    CHECK(strcmp(affine_last_error(context), "output 0 \"y\": the buffer must have at least 2304 bytes") == 0);
    out.bytes = sizeof y;
    out.data = NULL;
    CHECK(affine_run_tensors(context, &in, 1, &out, 1) == NNCC_ERROR_NULL);
    CHECK(affine_context_level(NULL) == -1);
    affine_destroy(context);
    {
        /* Memory of the right size that is no context. */
        static uint64_t nothing[64];
        CHECK(run_on((nncc_context *)nothing, 0, y) == NNCC_ERROR_CONTEXT);
        CHECK(affine_set_trace((nncc_context *)nothing, NULL, NULL) == NNCC_ERROR_CONTEXT);
        CHECK(strcmp(affine_last_error((nncc_context *)nothing), affine_error_message(NNCC_ERROR_CONTEXT)) == 0);
    }
}

static void uses_given_workspace(void) {
    float y[BIG * ROW];
    static _Alignas(64) unsigned char space[1 << 16];
    nncc_context *context = NULL;
    nncc_options options = plain_options();
    int before = allocations;
    uint64_t small = affine_workspace_size(0, 1), big = affine_workspace_size(1, 1);
    CHECK(big < sizeof space - 128);
    options.workspace = space;
    options.workspace_bytes = small - 64;
    CHECK(affine_create(&options, &context) == NNCC_ERROR_WORKSPACE);
    options.workspace = space + 8;
    options.workspace_bytes = big;
    CHECK(affine_create(&options, &context) == NNCC_ERROR_WORKSPACE);
    /* Enough for the small set only. */
    options.workspace = space;
    options.workspace_bytes = small;
    CHECK(affine_create(&options, &context) == NNCC_OK);
    CHECK(run_on(context, 0, y) == NNCC_OK && right(y, 4));
    CHECK(run_on(context, 1, y) == NNCC_ERROR_WORKSPACE);
    affine_destroy(context);
    /* Just enough for all: nothing beyond is touched. */
    options.workspace_bytes = big;
    memset(space, 0x5a, sizeof space);
    CHECK(affine_create(&options, &context) == NNCC_OK);
    CHECK(run_on(context, 1, y) == NNCC_OK && right(y, 9));
    affine_destroy(context);
    for (size_t i = big; i < sizeof space; i++)
        if (space[i] != 0x5a) {
            CHECK(!"wrote beyond the workspace");
            break;
        }
    CHECK(allocations == before);
}

static void reverse_for(void *user, uint32_t count, void (*task)(void *job, uint32_t index), void *job) {
    ++*(int *)user;
    for (uint32_t i = count; i-- > 0;)
        task(job, i);
}

static void threads_agree(void) {
    float y[BIG * ROW];
    for (uint32_t threads = 1; threads <= 4; threads++) {
        nncc_context *context = NULL;
        nncc_options options = plain_options();
        int before;
        options.threads = threads;
        CHECK(affine_create(&options, &context) == NNCC_OK);
        before = allocations;
        for (int i = 0; i < 2000; i++) {
            memset(y, 0, sizeof y);
            CHECK(run_on(context, 1, y) == NNCC_OK && right(y, 9));
            CHECK(run_on(context, 0, y) == NNCC_OK);
        }
        CHECK(allocations == before);
        {
            /* Long enough for the workers to fall asleep. */
            struct timespec pause = {0, 20000000};
            nanosleep(&pause, NULL);
        }
        memset(y, 0, sizeof y);
        CHECK(run_on(context, 1, y) == NNCC_OK && right(y, 9));
        affine_destroy(context);
    }
    {
        nncc_context *context = NULL;
        nncc_options options = plain_options();
        int calls = 0;
        options.threads = 5;
        options.parallel_for = reverse_for;
        options.parallel_user = &calls;
        CHECK(affine_create(&options, &context) == NNCC_OK);
        memset(y, 0, sizeof y);
        CHECK(run_on(context, 1, y) == NNCC_OK && right(y, 9) && calls == 2);
        affine_destroy(context);
    }
}

static void *run_own_context(void *unused) {
    float y[BIG * ROW];
    nncc_context *context = NULL;
    nncc_options options = plain_options();
    options.threads = 2;
    if (affine_create(&options, &context) != NNCC_OK)
        return (void *)1;
    for (int i = 0; i < 300; i++) {
        memset(y, 0, sizeof y);
        if (run_on(context, 1, y) != NNCC_OK || !right(y, 9))
            return (void *)1;
    }
    affine_destroy(context);
    return unused;
}

static void contexts_are_independent(void) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, run_own_context, NULL) == 0);
    for (int i = 0; i < 4; i++) {
        void *failed = NULL;
        CHECK(pthread_join(threads[i], &failed) == 0 && failed == NULL);
    }
}

struct trace {
    int events, stop_after, reentered;
    uint64_t clock;
    nncc_context *context;
    float *y;
};

static int32_t on_step(void *user, const nncc_trace_event *event) {
    struct trace *trace = user;
    const nncc_tensor *result = event->results;
    CHECK(event->step == (uint32_t)trace->events && event->set == 1);
    CHECK(event->result_count == 1 && result->rank == 2 && result->shape[0] == 9 && result->dtype == NNCC_F32);
    CHECK(result->bytes == sizeof x && strcmp(result->name, trace->events == 0 ? "t" : "y") == 0);
    CHECK(strcmp(event->name, trace->events == 0 ? "mul" : "add") == 0);
    CHECK(event->duration_ns == 1 && event->start_ns == trace->clock - 1);
    if (trace->events == 1)
        CHECK(result->data == (void *)trace->y && right(result->data, 9));
    /* The context is taken while it runs. */
    trace->reentered = run_on(trace->context, 0, trace->y);
    trace->events++;
    return trace->events == trace->stop_after;
}

static uint64_t ticks(void *user) { return ++((struct trace *)user)->clock; }

static int32_t count_only(void *user, const nncc_trace_event *event) {
    CHECK(event->duration_ns < UINT64_C(10000000000) && event->start_ns > 0);
    ++*(int *)user;
    return 0;
}

static void traces(void) {
    float y[BIG * ROW];
    struct trace trace = {0, 0, 0, 0, NULL, NULL};
    nncc_context *context = NULL;
    nncc_options options = plain_options();
    int count = 0;
    options.clock = ticks;
    options.clock_user = &trace;
    CHECK(affine_create(&options, &context) == NNCC_OK);
    trace.context = context;
    trace.y = y;
    CHECK(affine_set_trace(context, on_step, &trace) == NNCC_OK);
    CHECK(run_on(context, 1, y) == NNCC_OK && trace.events == 2 && trace.reentered == NNCC_ERROR_BUSY);
    trace.events = 0;
    trace.stop_after = 1;
    CHECK(run_on(context, 1, y) == NNCC_ERROR_STOPPED && trace.events == 1);
    CHECK(affine_set_trace(context, NULL, NULL) == NNCC_OK);
    CHECK(run_on(context, 1, y) == NNCC_OK && trace.events == 1);
    affine_destroy(context);
    CHECK(affine_create(NULL, &context) == NNCC_OK);
    CHECK(affine_set_trace(context, count_only, &count) == NNCC_OK);
    CHECK(run_on(context, 1, y) == NNCC_OK && count == 2);
    affine_destroy(context);
}

static void keeps_floating_point_control(void) {
    float y[BIG * ROW];
    for (uint32_t threads = 1; threads <= 2; threads++) {
        nncc_context *context = NULL;
        nncc_options options = plain_options();
        options.threads = threads;
        fesetround(FE_UPWARD);
        CHECK(affine_create(&options, &context) == NNCC_OK);
        CHECK(run_on(context, 1, y) == NNCC_OK && right(y, 9));
        CHECK(fegetround() == FE_UPWARD);
        CHECK(run_on(context, 7, y) == NNCC_ERROR_SET && fegetround() == FE_UPWARD);
        affine_destroy(context);
        fesetround(FE_TONEAREST);
    }
}

static void levels(void) {
    float y[BIG * ROW];
    nncc_context *context = NULL;
    nncc_options options = plain_options();
    options.max_level = NNCC_LEVEL_BASELINE;
    CHECK(affine_create(&options, &context) == NNCC_OK);
    CHECK(affine_context_level(context) == 0);
    CHECK(run_on(context, 1, y) == NNCC_OK && right(y, 9));
    affine_destroy(context);
}

#define PAINTED 65536
static unsigned char *stack_memory;

static void *on_painted_stack(void *unused) {
    static float y[BIG * ROW];
    volatile unsigned char *here = __builtin_frame_address(0);
    volatile unsigned char *low = here - PAINTED, *p;
    nncc_context *context = NULL;
    nncc_options options = plain_options();
    const void *inputs[1] = {x};
    void *outputs[1];
    outputs[0] = y;
    options.clock = NULL;
    CHECK(affine_create(&options, &context) == NNCC_OK);
    /* This frame itself ends less than 1024 bytes below its address. */
    for (p = low; p < here - 1024; p++)
        *p = 0xa5;
    CHECK(affine_run_context(context, 1, inputs, outputs) == NNCC_OK);
    for (p = low; p < here - 1024 && *p == 0xa5; p++)
        ;
    CHECK((uint64_t)(here - p) <= AFFINE_STACK_BYTES + 1024);
    affine_destroy(context);
    return unused;
}

static void stays_within_stack_bound(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    stack_memory = aligned_alloc(65536, 4 * 65536);
    pthread_attr_init(&attributes);
    CHECK(pthread_attr_setstack(&attributes, stack_memory, 4 * 65536) == 0);
    CHECK(pthread_create(&thread, &attributes, on_painted_stack, NULL) == 0);
    pthread_join(thread, NULL);
    free(stack_memory);
}

int main(void) {
    fill();
    describes_itself();
    runs();
    refuses();
    uses_given_workspace();
    threads_agree();
    contexts_are_independent();
    traces();
    keeps_floating_point_control();
    levels();
    stays_within_stack_bound();
    if (failures == 0)
        printf("ok\n");
    return failures != 0;
}
