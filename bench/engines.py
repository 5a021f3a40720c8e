#!/usr/bin/env python3
"""The inference engines that nncc is compared with, one class each, and the process that runs one of them.

    engines.py ENGINE MODEL.onnx INPUT.npy EXPECTED.npy --threads N --cache FOLDER

An engine has three parts: `convert` makes the file that it deploys (once, cached; for most there is nothing to do), `load`
is what a program does at start, `run` is one inference. Every engine computes in f32 on the CPU, on the number of threads
that it is given, with the optimizations that its documentation recommends for latency.

Run as a program it loads the engine, checks its output and then answers timed windows on standard input, in the protocol
of `nncc bench --worker`: a line of JSON about loading; then, for each number of seconds that it reads, a line with the
milliseconds of each run, by the clock and of the process.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np


class Engine:
    """What the engines share. `model` is the path of the .onnx file, `base` that of converted files, without extension."""

    def __init__(self, model, base, x, threads):
        self.model, self.base, self.x, self.threads = model, base, x, threads

    @classmethod
    def convert(cls, model, base, x):
        """Makes the files that `load` reads. Called once, before any process that measures."""

    def load(self):
        raise NotImplementedError

    def run(self):
        """One inference; the result stays where the engine puts it."""
        raise NotImplementedError

    def output(self):
        """The result of the last run."""
        raise NotImplementedError


class OnnxRuntime(Engine):
    """onnxruntime, CPU provider, all graph optimizations."""

    def load(self):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])
        self.feed = {self.session.get_inputs()[0].name: self.x}

    def run(self):
        self.result = self.session.run(None, self.feed)

    def output(self):
        return self.result[0]


class OpenVino(Engine):
    """OpenVINO, CPU plugin, latency hint; f32, where it would take bf16 on some machines."""

    def load(self):
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,  # the process is pinned already
        }
        self.request = openvino.Core().compile_model(self.model, "CPU", settings).create_infer_request()
        self.request.set_input_tensor(openvino.Tensor(self.x, shared_memory=True))

    def run(self):
        self.request.infer()

    def output(self):
        return self.request.get_output_tensor().data


class Ncnn(Engine):
    """ncnn, converted by pnnx; f32 storage and arithmetic, Winograd and packed layouts as by default."""

    @classmethod
    def convert(cls, model, base, x):
        if os.path.exists(base + ".ncnn.bin"):
            return
        # pnnx writes a dozen files beside its input, under its name.
        if not os.path.exists(base + ".onnx"):
            os.symlink(os.path.abspath(model), base + ".onnx")
        shape = "inputshape=[" + ",".join(map(str, x.shape)) + "]"
        pnnx = os.path.join(os.path.dirname(sys.executable), "pnnx")
        command = [pnnx, os.path.basename(base) + ".onnx", shape, "fp16=0"]
        subprocess.run(command, cwd=os.path.dirname(base), check=True, stdout=subprocess.DEVNULL, timeout=600)

    def load(self):
        import ncnn

        self.net = ncnn.Net()
        self.net.opt.num_threads = self.threads
        self.net.opt.use_vulkan_compute = False
        for half in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "bf16_packed"):
            if hasattr(self.net.opt, "use_" + half):
                setattr(self.net.opt, "use_" + half, False)
        for read, extension in ((self.net.load_param, ".ncnn.param"), (self.net.load_model, ".ncnn.bin")):
            if read(self.base + extension) != 0:
                raise RuntimeError("ncnn cannot read " + self.base + extension)
        self.mat = ncnn.Mat(self.x[0]).clone()

    def run(self):
        with self.net.create_extractor() as extractor:
            extractor.input("in0", self.mat)
            code, self.result = extractor.extract("out0")
        if code != 0:
            raise RuntimeError(f"ncnn: error {code}")

    def output(self):
        return np.array(self.result)


class Mnn(Engine):
    """MNN, CPU backend, precision high (f32)."""

    @classmethod
    def convert(cls, model, base, x):
        if os.path.exists(base + ".mnn"):
            return
        tool = os.path.join(os.path.dirname(sys.executable), "mnnconvert")
        command = [tool, "-f", "ONNX", "--modelFile", model, "--MNNModel", base + ".mnn", "--bizCode", "nncc"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)

    def load(self):
        import MNN

        self.net = MNN.Interpreter(self.base + ".mnn")
        self.session = self.net.createSession({"backend": "CPU", "precision": "high", "numThread": self.threads})
        caffe = MNN.Tensor_DimensionType_Caffe
        self.input = self.net.getSessionInput(self.session)
        self.result = self.net.getSessionOutput(self.session)
        self.given = MNN.Tensor(self.x.shape, MNN.Halide_Type_Float, self.x, caffe)
        shape = self.result.getShape()
        self.host = MNN.Tensor(shape, MNN.Halide_Type_Float, np.zeros(shape, np.float32), caffe)

    def run(self):
        self.input.copyFrom(self.given)
        self.net.runSession(self.session)
        self.result.copyToHostTensor(self.host)

    def output(self):
        return np.array(self.host.getNumpyData())


class PyTorch(Engine):
    """PyTorch in eager mode: torchvision's or timm's network of that name with the ONNX file's weights."""

    # Networks whose constructor has more than one form: the one without training-time branches.
    ARGUMENTS = {
        name: {"aux_logits": False, "init_weights": False, "transform_input": False}
        for name in ("googlenet", "inception_v3")
    }

    def load(self):
        import onnx
        import torch

        torch.set_num_threads(self.threads)
        self.net = self.architecture(os.path.basename(self.model).removesuffix(".onnx")).eval()
        weights = {w.name: onnx.numpy_helper.to_array(w) for w in onnx.load(self.model).graph.initializer}
        state = self.net.state_dict()
        named = {k: torch.from_numpy(weights[k].copy()) for k in state if not k.endswith("num_batches_tracked")}
        self.net.load_state_dict(named, strict=False)
        self.tensor = torch.from_numpy(self.x)
        self.mode = torch.inference_mode()
        self.mode.__enter__()

    @classmethod
    def architecture(cls, name):
        import torch.nn as nn
        import torchvision

        if name == "lenet5":
            features = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU()]
            classes = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
            return nn.Sequential(*features, nn.MaxPool2d(2), nn.Flatten(), *classes)
        if name == "seresnet50":
            import timm

            return timm.create_model(name)
        if not hasattr(torchvision.models, name):
            raise LookupError(f"torchvision has no {name}")
        return getattr(torchvision.models, name)(**cls.ARGUMENTS.get(name, {}))

    def run(self):
        self.result = self.net(self.tensor)

    def output(self):
        return self.result.numpy()


ENGINES = {"onnxruntime": OnnxRuntime, "openvino": OpenVino, "ncnn": Ncnn, "mnn": Mnn, "pytorch": PyTorch}


def window(engine, seconds):
    """Runs until the time is over, three times at least."""
    wall, cpu = [], []
    end = time.perf_counter() + seconds
    while len(wall) < 3 or time.perf_counter() < end:
        c, t = time.process_time(), time.perf_counter()
        engine.run()
        wall.append((time.perf_counter() - t) * 1e3)
        cpu.append((time.process_time() - c) * 1e3)
    return {"wall": wall, "cpu": cpu}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=sorted(ENGINES))
    parser.add_argument("model")
    parser.add_argument("input")
    parser.add_argument("expected")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--convert", action="store_true", help="make the engine's files and end")
    args = parser.parse_args()
    # Engines print as they like: what the driver reads goes to a descriptor of its own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value):
        print(json.dumps(value), file=answers, flush=True)

    kind = ENGINES[args.engine]
    folder = os.path.join(args.cache, args.engine)
    os.makedirs(folder, exist_ok=True)
    base = os.path.join(folder, os.path.basename(args.model).removesuffix(".onnx"))
    x = np.ascontiguousarray(np.load(args.input))
    if args.convert:
        kind.convert(args.model, base, x)
        return
    expected = np.load(args.expected).ravel()
    engine = kind(args.model, base, x, args.threads)
    start = time.perf_counter()
    engine.load()
    loaded = time.perf_counter()
    engine.run()
    first = time.perf_counter()
    difference = np.abs(np.asarray(engine.output(), np.float64).ravel() - expected).max()
    answer({
        "load_ms": (loaded - start) * 1e3,
        "first_ms": (first - loaded) * 1e3,
        "reldiff": float(difference / (expected.max() - expected.min())),
    })
    for line in sys.stdin:
        engine.run()
        answer(window(engine, float(line)))


if __name__ == "__main__":
    main()
