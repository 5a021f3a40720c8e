#!/usr/bin/env python3
"""What each part of a recipe is good for, shown by leaving it out: `ablations.py [--seeds 1,2,3] [--only NAME,..]`.

Writes the table between the two marks of docs/training.md. Data first: `python tools/training_data.py target/training`.
Everything learns the 8x8 digits of scikit-learn by `nncc train`; a row has the mean accuracy in per cent on the held-out digits
over the seeds, the least and the most, and the mean norm of the first and the last weighted layer's gradient in the last
epoch, where a deep stack shows whether gradients arrive. Needs numpy and onnx.
"""
import argparse
import json
import os
import subprocess

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MARKS = ["<!-- bench/ablations.py: begin -->\n", "<!-- bench/ablations.py: end -->\n"]


def stack(path, seed, depth, activation="Relu", norm=False, init="he", width=16):
    """`depth` 3x3 convolutions of one activation on a 8x8 picture, their mean, a dense layer."""
    rng = np.random.default_rng(seed)
    nodes, weights, channels, value = [], [], 1, "x"

    def weight(name, array):
        weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def begin(shape, fan_in, fan_out):
        deviation = {"he": (2 / fan_in) ** 0.5, "xavier": (2 / (fan_in + fan_out)) ** 0.5, "zeros": 0.0}[init]
        return rng.standard_normal(shape) * deviation

    for i in range(depth):
        w = weight(f"conv{i}.weight", begin((width, channels, 3, 3), 9 * channels, 9 * width))
        nodes.append(helper.make_node("Conv", [value, w], [f"conv{i}"], f"conv{i}", pads=[1] * 4))
        value = f"conv{i}"
        if norm:
            values = [("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)]
            parts = [weight(f"bn{i}.{part}", np.full(width, v)) for part, v in values]
            nodes.append(helper.make_node("BatchNormalization", [value, *parts], [f"bn{i}"], f"bn{i}"))
            value = f"bn{i}"
        nodes.append(helper.make_node(activation, [value], [f"act{i}"], f"act{i}"))
        value, channels = f"act{i}", width
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["mean"], "mean"))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"], "flat"))
    w, b = weight("fc.weight", begin((10, width), width, 10)), weight("fc.bias", np.zeros(10))
    nodes.append(helper.make_node("Gemm", ["flat", w, b], ["y"], "fc", transB=1))
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in (("x", ["N", 1, 8, 8]), ("y", ["N", 10]))]
    graph = helper.make_graph(nodes, "stack", ports[:1], ports[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def cases(folder):
    """Groups of rows: a title, then (what, how the model is made, flags)."""
    usual = {"data": f"{folder}/digits.npz", "val": f"{folder}/digits_test.npz", "optim": "adamw", "lr": "0.002",
             "schedule": "cosine", "epochs": "15"}
    plain = {**usual, "epochs": "30"}
    few = {**plain, "data": f"{folder}/few.npz", "weight-decay": "0", "epochs": "300"}
    rare = {**plain, "data": f"{folder}/rare.npz"}
    hot = {**plain, "data": f"{folder}/hot.npz", "val": f"{folder}/hot_test.npz", "loss": "mse"}
    sgd = {**plain, "optim": "momentum", "lr": "0.05", "schedule": "constant"}
    fast = {**sgd, "lr": "0.1"}

    def new(arch):
        return lambda path, seed: ["new", arch, "--classes", "10", "--input", "1x8x8", "--seed", str(seed), "-o", path]

    def built(depth, **how):
        return lambda path, seed: stack(path, seed, depth, **how)

    return [
        ("Sigmoid and ReLU, 12 layers", [
            ("sigmoid", built(12, activation="Sigmoid", init="xavier"), usual),
            ("ReLU", built(12), usual)]),
        ("Where weights begin, 12 layers of ReLU", [
            ("zeros", built(12, init="zeros"), usual),
            ("Xavier", built(12, init="xavier"), usual),
            ("He", built(12, init="he"), usual)]),
        ("Batch normalization, 12 layers, SGD with momentum at 0.05", [
            ("without", built(12), sgd),
            ("with", built(12, norm=True), sgd)]),
        ("Residuals, without and with, 20 and 44 layers", [
            ("plain20", new("plain20"), usual), ("resnet20", new("resnet20"), usual),
            ("plain44", new("plain44"), usual), ("resnet44", new("resnet44"), usual)]),
        ("Loss, MLP", [("MSE of one-hot targets", new("mlp"), hot), ("cross-entropy", new("mlp"), plain)]),
        ("Regularisation, MLP, 150 digits to learn from", [
            ("none", new("mlp"), few),
            ("L2, 0.003", new("mlp"), {**few, "l2": "0.003"}),
            ("augmentation", new("mlp"), {**few, "augment": "rotate=10,translate=0.08,scale=0.1"})]),
        ("Dropout, spatial pyramid, 150 digits to learn from", [
            ("without", lambda path, seed: without_dropout(path, seed, new("spp")), few), ("with", new("spp"), few)]),
        ("Rates, LeNet-like stack of 6", [
            ("constant", built(6, norm=True), fast),
            ("step: a tenth each 10 epochs", built(6, norm=True), {**fast, "schedule": "step:size=10"}),
            ("cosine", built(6, norm=True), {**fast, "schedule": "cosine"})]),
        ("Unbalanced: 12 samples each of the digits 3, 8 and 9, all of the others", [
            ("as it is", new("mlp"), rare),
            ("class weights", new("mlp"), {**rare, "class-weights": "balanced"}),
            ("over-sampling", new("mlp"), {**rare, "sampling": "over"}),
            ("SMOTE", new("mlp"), {**rare, "smote": "5"})]),
    ]


def without_dropout(path, seed, make):
    """A network of `nncc new` whose dropouts are taken out."""
    command = make(path, seed)
    subprocess.run([without_dropout.nncc, *command], check=True, capture_output=True)
    model = onnx.load(path)
    names = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Dropout"}
    kept = [node for node in model.graph.node if node.op_type != "Dropout"]
    for node in kept:
        node.input[:] = [names.get(name, name) for name in node.input]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.save(model, path)


def derived(folder):
    """Data sets made of the digits: few, one-hot, unbalanced."""
    rng = np.random.default_rng(1)
    for part in ("", "_test"):
        data = np.load(f"{folder}/digits{part}.npz")
        x, y = data["x"], data["y"]
        np.savez(f"{folder}/hot{part}.npz", x=x, y=np.eye(10, dtype=np.float32)[y])
        if part:
            continue
        few = np.concatenate([rng.permutation(np.flatnonzero(y == c))[:15] for c in range(10)])
        np.savez(f"{folder}/few.npz", x=x[few], y=y[few])
        rare = np.concatenate([np.flatnonzero(y == c)[: 12 if c in (3, 8, 9) else None] for c in range(10)])
        np.savez(f"{folder}/rare.npz", x=x[rare], y=y[rare])


def measure(args, folder, make, flags, seed):
    model, out = f"{folder}/ablation.onnx", f"{folder}/ablation.json"
    command = make(model, seed)
    if isinstance(command, list):
        subprocess.run([args.nncc, *command], check=True, capture_output=True)
    options = [word for key, value in flags.items() for word in (f"--{key}", value)]
    run = [args.nncc, "train", model, *options, "--seed", str(seed), "--watch", "100", "--json", out, "-o", f"{folder}/ablated.onnx"]
    done = subprocess.run(run, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(run)}: {done.stderr}")
    result = json.load(open(out))
    norms = result["history"][-1].get("norms") or [{"gradient": float("nan")}]
    accuracy = result.get("accuracy")
    if accuracy is None:  # a loss of numbers: the largest output is the class
        accuracy = hot_accuracy(args, folder)
    return 100 * accuracy, norms[0]["gradient"], norms[-1]["gradient"]


def hot_accuracy(args, folder):
    """Cross-entropy's evaluation of a network that learnt one-hot targets: its largest output is the class as well."""
    run = [args.nncc, "eval", f"{folder}/ablated.onnx", "--data", f"{folder}/digits_test.npz", "--json"]
    return json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)["accuracy"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(ROOT, "target/training"))
    parser.add_argument("--seeds", type=lambda s: [int(n) for n in s.split(",")], default=[1, 2, 3])
    parser.add_argument("--only", type=lambda s: s.split(","), help="parts of titles; nothing is written then")
    parser.add_argument("--nncc", default=os.path.join(ROOT, "target/release/nncc"))
    args = parser.parse_args()
    without_dropout.nncc = args.nncc
    derived(args.data)
    lines = ["| | held out, % | least | most | first layer's gradient | last layer's |", "|---|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    for title, rows in cases(args.data):
        if args.only and not any(part in title for part in args.only):
            continue
        new = [f"| **{title}** | | | | | |"]
        for what, make, flags in rows:
            found = np.array([measure(args, args.data, make, flags, seed) for seed in args.seeds])
            accuracy, first, last = found.T
            figures = [f"{accuracy.mean():.1f}", f"{accuracy.min():.1f}", f"{accuracy.max():.1f}"]
            new.append(f"| {what} | {' | '.join([*figures, f'{first.mean():.1e}', f'{last.mean():.1e}'])} |")
        print("\n".join(new), flush=True)
        lines += new
    if not args.only:
        path = os.path.join(ROOT, "docs/training.md")
        text = open(path).read()
        before, rest = text.split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        open(path, "w").write(before + MARKS[0] + "\n".join(lines) + "\n" + MARKS[1] + after)


if __name__ == "__main__":
    main()
