/* Runs a compiled model on raw arrays: the other end of the cross-target tests, on the target or under qemu-user.
 *
 *     driver LIBRARY OUT IN...
 *
 * IN are the inputs' bytes in the model's order; the outputs' bytes are written to OUT one after the other. Any failure
 * is a sentence on standard error and exit code 1. Compiled with -DNNCC_HEADER="\"model.h\"", any generated header:
 * its types are the same for every model, and the functions are found by name in the library. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include NNCC_HEADER

static void fail(const char *what, const char *why) {
    fprintf(stderr, "driver: %s: %s\n", what, why ? why : "failed");
    exit(1);
}

static void *find(void *library, const char *name) {
    void *symbol = dlsym(library, name);
    if (!symbol)
        fail(name, dlerror());
    return symbol;
}

/* Memory for one tensor, aligned to 64 bytes; never null, also for an empty one. */
static void *room(uint64_t bytes) {
    void *p = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (!p)
        fail("memory", "no more");
    return p;
}

int main(int argc, char **argv) {
    if (argc < 3)
        fail("usage", "driver LIBRARY OUT IN...");
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library)
        fail("dlopen", dlerror());
    uint32_t (*abi_version)(void) = find(library, "nncc_abi_version");
    uint32_t (*input_count)(void) = find(library, "nncc_input_count");
    uint32_t (*output_count)(void) = find(library, "nncc_output_count");
    int32_t (*input)(uint32_t, uint32_t, nncc_tensor *) = find(library, "nncc_input");
    int32_t (*output)(uint32_t, uint32_t, nncc_tensor *) = find(library, "nncc_output");
    int32_t (*create)(const nncc_options *, nncc_context **) = find(library, "nncc_create");
    int32_t (*run)(nncc_context *, uint32_t, const void *const *, void *const *) = find(library, "nncc_run");
    const char *(*error_message)(int32_t) = find(library, "nncc_error_message");
    const char *(*last_error)(const nncc_context *) = find(library, "nncc_last_error");
    void (*destroy)(nncc_context *) = find(library, "nncc_destroy");

    if (abi_version() != NNCC_ABI_VERSION)
        fail("abi version", "differs from the header's");
    uint32_t inputs = input_count(), outputs = output_count();
    if ((uint32_t)argc != inputs + 3)
        fail("inputs", "another number than the model has");
    void **in = calloc(inputs + 1, sizeof *in), **out = calloc(outputs + 1, sizeof *out);
    for (uint32_t i = 0; i < inputs; i++) {
        nncc_tensor tensor;
        int32_t code = input(0, i, &tensor);
        if (code)
            fail("nncc_input", error_message(code));
        in[i] = room(tensor.bytes);
        FILE *file = fopen(argv[3 + i], "rb");
        if (!file || fread(in[i], 1, tensor.bytes, file) != tensor.bytes || fgetc(file) != EOF)
            fail(argv[3 + i], "not of the input's size");
        fclose(file);
    }
    for (uint32_t i = 0; i < outputs; i++) {
        nncc_tensor tensor;
        int32_t code = output(0, i, &tensor);
        if (code)
            fail("nncc_output", error_message(code));
        out[i] = room(tensor.bytes);
    }
    nncc_context *context;
    int32_t code = create(NULL, &context);
    if (code)
        fail("nncc_create", error_message(code));
    if (run(context, 0, (const void *const *)in, (void *const *)out))
        fail("nncc_run", last_error(context));
    FILE *file = fopen(argv[2], "wb");
    for (uint32_t i = 0; i < outputs; i++) {
        nncc_tensor tensor;
        output(0, i, &tensor);
        if (!file || fwrite(out[i], 1, tensor.bytes, file) != tensor.bytes)
            fail(argv[2], "cannot be written");
    }
    fclose(file);
    destroy(context);
    return 0;
}
