#!/usr/bin/env python3
"""Held-out accuracy of nncc and PyTorch with the recipes of recipes/, over seeds: `learn.py [--recipes A,B] [--seeds 1,2,3]`.

Each recipe is run as a user would: `nncc new` makes the network, `nncc train --recipe` teaches it. PyTorch learns the same
architecture with its own initialisation and order of samples from the same files, by the keys of the same recipe, on as
many threads. Data first: `python tools/training_data.py target/training` (scikit-learn, scikit-image, npm).

A row has the mean of the seeds' accuracies on the held-out data in per cent, and the least and the most; seconds are those of
the whole command or of PyTorch's loop, the least of the seeds.
"""
import argparse
import os
import subprocess
import sys
import time
import tomllib

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RECIPES = ["digits-mlp", "digits-cnn", "mnist-lenet5", "mnist-lenet5-augmented"]
# What PyTorch's affine augmentation is told of a recipe's; it has no others here.
AFFINE = {"rotate", "translate", "scale"}


def recipe_of(name):
    """The keys, paths absolute, and the words of the `nncc new` line that its first comment is."""
    path = os.path.join(ROOT, "recipes", f"{name}.toml")
    text = open(path).read()
    keys = tomllib.loads(text)
    for key in ("model", "data", "val"):
        keys[key] = os.path.normpath(os.path.join(os.path.dirname(path), keys[key]))
    return path, keys, text.splitlines()[0].removeprefix("# nncc ").split()


def run_nncc(args, name, seed):
    path, keys, new = recipe_of(name)
    model = keys["model"].replace(".onnx", f"-{seed}.onnx")
    new[new.index("-o") + 1] = model
    out = model.replace(".onnx", ".trained.onnx")
    subprocess.run([args.nncc, *new, "--seed", str(seed)], check=True, capture_output=True)
    began = time.perf_counter()
    command = [args.nncc, "train", model, "--recipe", path, "--seed", str(seed), "--threads", str(args.threads), "-o", out]
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - began
    result = subprocess.run([args.nncc, "eval", out, "--data", keys["val"]], check=True, capture_output=True, text=True)
    line = next(line for line in result.stdout.splitlines() if line.strip().startswith("accuracy"))
    return float(line.split()[1]), seconds


def network(new):
    """The architecture of `nncc new` in PyTorch, with PyTorch's own initialisation where that of the zoo is PyTorch's."""
    import torch
    from torch import nn
    arch, classes = new[1], int(new[new.index("--classes") + 1])
    channels, height, width = map(int, new[new.index("--input") + 1].split("x"))
    if arch == "mlp":
        layers = [nn.Flatten()]
        units = channels * height * width
        for n in (256, 128):
            layers += [nn.Linear(units, n), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")
            nn.init.zeros_(layers[-2].bias)
            units = n
        return nn.Sequential(*layers, nn.Linear(units, classes))
    if arch == "lenet5":
        size = 16 * (height // 2 // 2 - 2) * (width // 2 // 2 - 2)
        return nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(size, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes))
    if arch == "spp":
        plane = min(height, width) // 4
        levels = [n for n in (4, 2, 1) if n <= plane]

        class Pyramid(nn.Module):
            def forward(self, x):
                return torch.cat([nn.functional.adaptive_max_pool2d(x, n).flatten(1) for n in levels], 1)
        layers, before = [], channels
        for i, n in enumerate((32, 64, 128, 128)):
            conv = nn.Conv2d(before, n, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            layers += [conv, nn.BatchNorm2d(n), nn.ReLU()] + ([nn.MaxPool2d(2)] if i < 2 else [])
            before = n
        return nn.Sequential(*layers, Pyramid(), nn.Dropout(0.5), nn.Linear(128 * sum(n * n for n in levels), classes))
    sys.exit(f"{arch} is not written in PyTorch here")


def augmented(x, spec):
    """RandomAffine with the recipe's numbers, one draw a sample."""
    import torch
    given = {key: float(value) for key, value in (item.split("=") for item in spec.split(","))}
    if set(given) - AFFINE:
        sys.exit(f"augmentation {set(given) - AFFINE} is not written in PyTorch here")
    n = len(x)

    def draw(limit):
        return (torch.rand(n) * 2 - 1) * limit
    angle, zoom = draw(given.get("rotate", 0.0)).deg2rad(), 1 / (1 + draw(given.get("scale", 0.0)))
    shift = [draw(2 * given.get("translate", 0.0)) for _ in range(2)]
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    theta = torch.stack([torch.stack([cos, -sin, shift[0]], 1), torch.stack([sin, cos, shift[1]], 1)], 1)
    grid = torch.nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
    return torch.nn.functional.grid_sample(x, grid, align_corners=False)


def run_torch(args, name, seed):
    import torch
    _, keys, new = recipe_of(name)
    torch.set_num_threads(args.threads)
    torch.manual_seed(seed)
    load = [np.load(keys[key]) for key in ("data", "val")]
    (x, y), (x_val, y_val) = [(torch.from_numpy(part["x"]), torch.from_numpy(part["y"])) for part in load]
    model = network(new)
    optimizer = {"adamw": torch.optim.AdamW}[keys["optim"]](model.parameters(), lr=keys["lr"])
    batch, epochs = keys["batch-size"], keys["epochs"]
    began = time.perf_counter()
    steps = -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    for _ in range(epochs):
        model.train()
        order = torch.randperm(len(x))
        for rows in order.split(batch):
            inputs = augmented(x[rows], keys["augment"]) if "augment" in keys else x[rows]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), y[rows]).backward()
            optimizer.step()
            schedule.step()
    seconds = time.perf_counter() - began
    model.eval()
    with torch.no_grad():
        return 100 * (model(x_val).argmax(1) == y_val).double().mean().item(), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=lambda s: s.split(","), default=RECIPES)
    parser.add_argument("--seeds", type=lambda s: [int(n) for n in s.split(",")], default=[1, 2, 3])
    parser.add_argument("--engines", type=lambda s: s.split(","), default=["nncc", "pytorch"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nncc", default=os.path.join(ROOT, "target/release/nncc"))
    args = parser.parse_args()
    print("| recipe | engine | held out, % | least | most | s |\n|---|---|---|---|---|---|")
    for name in args.recipes:
        for engine in args.engines:
            run = {"nncc": run_nncc, "pytorch": run_torch}[engine]
            found = [run(args, name, seed) for seed in args.seeds]
            accuracies = [accuracy for accuracy, _ in found]
            figures = [sum(accuracies) / len(accuracies), min(accuracies), max(accuracies)]
            print(f"| {name} | {engine} |", *(f"{x:.2f} |" for x in figures), f"{min(s for _, s in found):.1f} |", flush=True)


if __name__ == "__main__":
    main()
