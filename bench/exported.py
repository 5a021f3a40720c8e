#!/usr/bin/env python3
"""Whether the files that `nncc train` writes are ONNX models like any other: `exported.py [--recipes A,B]`.

Of each recipe's result (that of bench/learn.py with seed 1; it is run where it is missing) and of a ResNet-20 after one epoch,
whose weights, statistics and shortcuts moved: onnx.checker with shape inference, and onnxruntime's outputs beside nncc's on held-out
samples. A model of a batch of one is run sample by sample in onnxruntime, and in one batch in nncc.

A row has the largest difference as a share of the range of all outputs. One above 1e-5 ends the program with an error.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import learn
import numpy as np
import onnx
import onnxruntime

LIMIT = 1e-5
SAMPLES = 64


def resnet20(args):
    """A network with batch normalization and residuals, after one epoch of the 8x8 digits."""
    model, out = (os.path.join(learn.ROOT, "target", "training", f"resnet20{end}.onnx") for end in ("", ".trained"))
    data = os.path.join(learn.ROOT, "target", "training", "digits")
    new = [args.nncc, "new", "resnet20", "--classes", "10", "--input", "1x8x8", "-o", model]
    subprocess.run(new, check=True, capture_output=True)
    train = [args.nncc, "train", model, "--data", f"{data}.npz", "--epochs", "1", "--batch-size", "64", "-o", out]
    subprocess.run(train, check=True, capture_output=True)
    return out, learn.samples(f"{data}_test.npz")[0].numpy()


def result_of(args, name):
    _, keys, _ = learn.recipe_of(name)
    path = learn.result_of(name, 1, "onnx")
    if not os.path.exists(path):
        learn.run_nncc(args, name, 1)
    mean, scale = (keys.get(key, [default])[0] for key, default in (("mean", 0.0), ("scale", 1.0)))
    return path, (learn.samples(keys["val"])[0].numpy().astype(np.float32) - np.float32(mean)) * np.float32(scale)


def by_onnxruntime(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    declared = session.get_inputs()[0]
    size = declared.shape[0] if isinstance(declared.shape[0], int) else len(x)
    return np.concatenate([session.run(None, {declared.name: x[i : i + size]})[0] for i in range(0, len(x), size)])


def by_nncc(args, path, x):
    name = onnx.load(path, load_external_data=False).graph.input[0].name
    with tempfile.TemporaryDirectory() as folder:
        given, written = os.path.join(folder, "x.npy"), os.path.join(folder, "y.npz")
        np.save(given, x)
        command = [args.nncc, "run", path, "--input", f"{name}={given}", "--output", written]
        subprocess.run(command, check=True, capture_output=True)
        return next(iter(np.load(written).values()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=lambda s: s.split(","), default=learn.RECIPES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nncc", default=os.path.join(learn.ROOT, "target/release/nncc"))
    args = parser.parse_args()
    print("| model | onnx.checker | samples | largest difference from onnxruntime, of the outputs' range |\n|---|---|---|---|")
    far = []
    models = [(name, lambda name=name: result_of(args, name)) for name in args.recipes]
    for name, make in [*models, ("resnet20, one epoch", lambda: resnet20(args))]:
        path, x = make()
        onnx.checker.check_model(path, full_check=True)
        rows = np.linspace(0, len(x) - 1, min(SAMPLES, len(x))).astype(int)
        expected, got = by_onnxruntime(path, x[rows]), by_nncc(args, path, x[rows])
        off = np.abs(got - expected).max() / np.ptp(expected)
        print(f"| {name} | passes | {len(rows)} | {off:.1e} |", flush=True)
        if not off <= LIMIT:
            far.append(name)
    if far:
        sys.exit(f"further than {LIMIT} from onnxruntime: {', '.join(far)}")


if __name__ == "__main__":
    main()
