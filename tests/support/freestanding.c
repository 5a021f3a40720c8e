/* Runs a network in a program without libc: linked with -nostdlib, it starts at _start and ends by a system call.
 *
 * Its exit code is 0 when the output is within ALLOWED of the exact one, as a share of its range, and the run stayed
 * within the stack that the header promises. Nothing could be allocated: there is no malloc. On the command line:
 *   START               the file start.h, in quotes
 *   MODEL, CONSTANTS    the model's name in front of its functions, and of its constants
 *   INPUT, EXACT        files with the input's and the exact output's elements, f32
 *   OUTPUTS, ALLOWED    elements of the output, the distance that is allowed */
#include "model.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define CALL(function) JOIN(MODEL, function)
#define CONSTANT(name) JOIN(CONSTANTS, name)

__asm__(".section .rodata\n.balign 64\n.globl input, exact\n"
        "input: .incbin \"" INPUT "\"\n.balign 64\n"
        "exact: .incbin \"" EXACT "\"\n.text\n");
extern const float input[], exact[OUTPUTS];

static float output[OUTPUTS];
static _Alignas(64) unsigned char workspace[CONSTANT(_WORKSPACE_BYTES)];

/* What this frame itself and the call may take below its address. */
#define OWN_FRAME 1024

static int check(void) {
    nncc_options options = {0};
    nncc_context *context;
    const void *inputs[1] = {input};
    void *outputs[1] = {output};
    volatile unsigned char *here = __builtin_frame_address(0), *p;
    volatile unsigned char *low = here - OWN_FRAME - CONSTANT(_STACK_BYTES) - 4096;
    float least = exact[0], greatest = exact[0], furthest = 0;

    options.struct_size = sizeof options;
    options.workspace = workspace;
    options.workspace_bytes = sizeof workspace;
    if (CALL(_create)(&options, &context) != NNCC_OK)
        return 1;
    for (p = here - OWN_FRAME; p > low; p--)
        *p = 0xa5;
    if (CALL(_run_context)(context, 0, inputs, outputs) != NNCC_OK)
        return 2;
    for (p = low + 1; p < here - OWN_FRAME && *p == 0xa5; p++)
        ;
    if ((uint64_t)(here - p) > OWN_FRAME + CONSTANT(_STACK_BYTES))
        return 3;
    for (int i = 0; i < OUTPUTS; i++) {
        float off = output[i] > exact[i] ? output[i] - exact[i] : exact[i] - output[i];
        least = exact[i] < least ? exact[i] : least;
        greatest = exact[i] > greatest ? exact[i] : greatest;
        /* NaN is not at most anything. */
        if (!(off <= furthest))
            furthest = off;
    }
    if (!(furthest <= (float)ALLOWED * (greatest - least)))
        return 4;
    CALL(_destroy)(context);
    return 0;
}

#include START
