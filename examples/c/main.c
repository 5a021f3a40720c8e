/*
 * Runs a compiled model from C: makes a context, runs it on ones, prints the first values of each output.
 *
 *     nncc examples/classify/efficientnet_lite0.onnx -o target/efficientnet_lite0.so      # also writes the header
 *     cc -std=c99 -DMODEL=efficientnet_lite0 -I target examples/c/main.c target/efficientnet_lite0.so -pthread -o target/c_example
 *     LD_LIBRARY_PATH=target target/c_example
 *
 * MODEL is the name of the model: of its header, and in front of its functions. A program for one model would write the
 * names out.
 */
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define CALL(function) JOIN(MODEL, function)

#define HEADER_(name) TEXT(name.h)
#include HEADER_(MODEL)

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 64

/* Memory for a tensor, filled with ones where it is of floats, else with zeros. */
static void *make(const nncc_tensor *tensor, int ones) {
    float *elements = calloc(1, tensor->bytes ? tensor->bytes : 1);
    uint64_t i;
    if (elements && ones && tensor->dtype == NNCC_F32)
        for (i = 0; i < tensor->bytes / sizeof *elements; i++)
            elements[i] = 1;
    return elements;
}

int main(void) {
    const void *inputs[MOST];
    void *outputs[MOST];
    nncc_tensor tensor;
    nncc_context *context;
    nncc_options options;
    uint32_t i, input_count = CALL(_input_count)(), output_count = CALL(_output_count)();
    int32_t code;

    if (input_count > MOST || output_count > MOST)
        return 1;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.threads = 2;
    code = CALL(_create)(&options, &context);
    if (code != NNCC_OK) {
        fprintf(stderr, "%s\n", CALL(_error_message)(code));
        return 1;
    }
    for (i = 0; i < input_count; i++) {
        CALL(_input)(0, i, &tensor);
        inputs[i] = make(&tensor, 1);
    }
    for (i = 0; i < output_count; i++) {
        CALL(_output)(0, i, &tensor);
        outputs[i] = make(&tensor, 0);
    }
    code = CALL(_run_context)(context, 0, inputs, outputs);
    if (code != NNCC_OK) {
        fprintf(stderr, "%s\n", CALL(_last_error)(context));
        return 1;
    }
    for (i = 0; i < output_count; i++) {
        uint64_t k;
        CALL(_output)(0, i, &tensor);
        printf("%s:", tensor.name);
        if (tensor.dtype == NNCC_F32)
            for (k = 0; k < 5 && k < tensor.bytes / sizeof(float); k++)
                printf(" %g", (double)((float *)outputs[i])[k]);
        printf("\n");
    }
    CALL(_destroy)(context);
    for (i = 0; i < input_count; i++)
        free((void *)inputs[i]);
    for (i = 0; i < output_count; i++)
        free(outputs[i]);
    return 0;
}
