/* Two models in one program, statically linked, called through their typed functions. Compiles as C99 and as C++17. */
#include "first.h"
#include "second.h"
#include <stdio.h>

static float x[4 * 64], y[4 * 64], z[4 * 64];

int main(void) {
    for (int i = 0; i < 4 * 64; i++)
        x[i] = (float)i;
    if (first_run(x, y) != NNCC_OK || second_run(x, z) != NNCC_OK)
        return 1;
    for (int i = 0; i < 4 * 64; i++)
        if (y[i] != z[i])
            return 2;
    if (first_abi_version() != NNCC_ABI_VERSION || second_input_count() != FIRST_INPUT_COUNT)
        return 3;
    printf("ok\n");
    return 0;
}
