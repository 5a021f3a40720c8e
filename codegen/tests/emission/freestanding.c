/* Runs a freestanding model in a program without libc: linked with -nostdlib, it starts at _start and ends by a system
   call. Exits with 0 when the result is right. */
#include "affine.h"

#define ROWS 4
#define ROW 64
static float x[ROWS * ROW], y[ROWS * ROW];
static _Alignas(64) unsigned char workspace[AFFINE_WORKSPACE_BYTES];

static int check(void) {
    nncc_options options = {0};
    nncc_context *context;
    const void *inputs[1] = {x};
    void *outputs[1] = {y};
    for (int i = 0; i < ROWS * ROW; i++)
        x[i] = (float)i;
    if (affine_run(x, y, workspace) != NNCC_OK)
        return 1;
    for (int i = 0; i < ROWS * ROW; i++) {
        int j = i % ROW;
        volatile float product = x[i] * (0.3f + (float)j * 0.7f);
        volatile float want = product + ((float)j - 31.0f) * 0.1f;
        if (y[i] != want)
            return 2;
        y[i] = 0;
    }
    options.struct_size = sizeof options;
    if (affine_create(&options, &context) != NNCC_ERROR_WORKSPACE)
        return 3;
    options.workspace = workspace;
    options.workspace_bytes = sizeof workspace;
    options.threads = 2;
    if (affine_create(&options, &context) != NNCC_ERROR_THREADS)
        return 4;
    options.threads = 1;
    if (affine_create(&options, &context) != NNCC_OK)
        return 5;
    if (affine_run_context(context, 0, inputs, outputs) != NNCC_OK || y[1] == 0)
        return 6;
    affine_destroy(context);
    return 0;
}

#include "start.h"
