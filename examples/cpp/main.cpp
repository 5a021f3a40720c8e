// Opens any compiled model at run time, describes it, and times its steps with the trace hook.
//
//     nncc examples/classify/efficientnet_lite0.onnx -o target/efficientnet_lite0.so      # also writes the header
//     c++ -std=c++17 -DHEADER='"efficientnet_lite0.h"' -I target examples/cpp/main.cpp -ldl -o target/cpp_example
//     target/cpp_example target/efficientnet_lite0.so
//
// Only the types of the header are used, and these are the same in the header of every model: the functions are found by
// their nncc_ names.
#include HEADER

#include <dlfcn.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

class Model {
public:
    explicit Model(const char *path) : library_(dlopen(path, RTLD_NOW | RTLD_LOCAL), dlclose) {
        if (!library_)
            throw std::runtime_error(dlerror());
        if (function<uint32_t()>("abi_version")() != NNCC_ABI_VERSION)
            throw std::runtime_error("the library speaks another version of the ABI");
    }

    // A function of the ABI by its name after nncc_.
    template <typename F> F *function(const char *name) const {
        void *address = dlsym(library_.get(), (std::string("nncc_") + name).c_str());
        if (!address)
            throw std::runtime_error(std::string("not a library compiled by nncc: no nncc_") + name);
        return reinterpret_cast<F *>(address);
    }

private:
    std::unique_ptr<void, int (*)(void *)> library_;
};

using Describe = int32_t(uint32_t set, uint32_t index, nncc_tensor *out);

std::vector<nncc_tensor> describe(uint32_t count, Describe *describe_one, const char *kind) {
    std::vector<nncc_tensor> tensors(count);
    for (uint32_t i = 0; i < count; i++) {
        describe_one(0, i, &tensors[i]);
        std::printf("%s \"%s\":", kind, tensors[i].name);
        for (uint32_t axis = 0; axis < tensors[i].rank; axis++)
            std::printf(" %lld", static_cast<long long>(tensors[i].shape[axis]));
        std::printf("\n");
    }
    return tensors;
}

int32_t print_step(void *, const nncc_trace_event *event) {
    std::printf("%6u  %10.1f us  %-24s %s\n", event->step, static_cast<double>(event->duration_ns) / 1000, event->op, event->name);
    return 0;
}

void run(const char *path) {
    Model model(path);
    auto inputs = describe(model.function<uint32_t()>("input_count")(), model.function<Describe>("input"), "input");
    auto outputs = describe(model.function<uint32_t()>("output_count")(), model.function<Describe>("output"), "output");
    std::vector<std::vector<uint64_t>> memory; // words, so that every element type is aligned
    for (auto *tensors : {&inputs, &outputs})
        for (auto &tensor : *tensors) {
            memory.emplace_back(tensor.bytes / 8 + 1);
            tensor.data = memory.back().data();
        }

    nncc_context *made = nullptr;
    int32_t code = model.function<int32_t(const nncc_options *, nncc_context **)>("create")(nullptr, &made);
    if (code != NNCC_OK)
        throw std::runtime_error(model.function<const char *(int32_t)>("error_message")(code));
    std::unique_ptr<nncc_context, void (*)(nncc_context *)> context(made, model.function<void(nncc_context *)>("destroy"));
    model.function<int32_t(nncc_context *, nncc_trace_fn, void *)>("set_trace")(context.get(), print_step, nullptr);
    using Run = int32_t(nncc_context *, const nncc_tensor *, uint32_t, const nncc_tensor *, uint32_t);
    code = model.function<Run>("run_tensors")(context.get(), inputs.data(), static_cast<uint32_t>(inputs.size()),
                                              outputs.data(), static_cast<uint32_t>(outputs.size()));
    if (code != NNCC_OK)
        throw std::runtime_error(model.function<const char *(const nncc_context *)>("last_error")(context.get()));
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s LIBRARY.so\n", argv[0]);
        return 2;
    }
    try {
        run(argv[1]);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
