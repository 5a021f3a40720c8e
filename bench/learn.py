#!/usr/bin/env python3
"""Held-out accuracy of nncc and PyTorch with the recipes of recipes/, over seeds: `learn.py [--recipes A,B] [--seeds 1,2,3]`.

Each recipe is run as a user would: `nncc new` makes the network, `nncc train --recipe` teaches it. PyTorch learns the same
architecture with its own initialisation and order of samples from the same files, by the keys of the same recipe, on as
many threads. Where a recipe begins with a trained network both have its weights, and one that stands behind another
(`# after NAME` in its first line) goes on from that one's result with the same seed. Data first: `python tools/training_data.py target/training` (scikit-learn, scikit-image, npm).

A row has the mean of the seeds' accuracies on the held-out data in per cent, and the least and the most; seconds are those of
the whole command or of PyTorch's loop, the least of the seeds.
"""
import argparse
import fnmatch
import os
import subprocess
import sys
import time
import tomllib

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RECIPES = ["digits-mlp", "digits-cnn", "mnist-lenet5", "mnist-lenet5-augmented", "photos-head", "photos-all"]
# What PyTorch's affine augmentation is told of a recipe's; it has no others here.
AFFINE = {"rotate", "translate", "scale"}
PIXELS = {"flip", "crop", "brightness", "contrast"}


def recipe_of(name):
    """The keys, paths absolute, and the first comment's words: a line of `nncc new`, or `after` and another recipe's name."""
    path = os.path.join(ROOT, "recipes", f"{name}.toml")
    text = open(path).read()
    keys = tomllib.loads(text)
    for key in ("model", "data", "val"):
        keys[key] = os.path.normpath(os.path.join(os.path.dirname(path), keys[key]))
    return path, keys, text.splitlines()[0].removeprefix("# ").removeprefix("nncc ").replace(":", "").split()


def result_of(name, seed, extension):
    """Where an engine's result of a recipe stands: behind it another one may begin."""
    return os.path.join(ROOT, "target", "training", f"{name}-{seed}.trained.{extension}")


def run_nncc(args, name, seed):
    path, keys, first = recipe_of(name)
    model, out = keys["model"], result_of(name, seed, "onnx")
    if first[0] == "new":
        model = out.replace(".trained", "")
        first[first.index("-o") + 1] = model
        subprocess.run([args.nncc, *first, "--seed", str(seed)], check=True, capture_output=True)
    elif first[0] == "after":
        model = result_of(first[1], seed, "onnx")
        if not os.path.exists(model):
            run_nncc(args, first[1], seed)
    began = time.perf_counter()
    command = [args.nncc, "train", model, "--recipe", path, "--seed", str(seed), "--threads", str(args.threads), "-o", out]
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - began
    prepared = [f"--{key}={keys[key][0]}" for key in ("mean", "scale") if key in keys]
    command = [args.nncc, "eval", out, "--data", keys["val"], *prepared]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
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
    """Torchvision's random changes with the recipe's numbers, one draw a sample: whole pixels and colours of pictures whose
    white is 255, or RandomAffine."""
    import torch
    given = {key: float(value) for key, value in (item.split("=") for item in spec.split(","))}
    if set(given) <= PIXELS:
        return pixels_changed(x, **given)
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


def pixels_changed(x, flip=0.0, crop=0, brightness=0.0, contrast=0.0):
    """RandomHorizontalFlip, RandomCrop with padding, ColorJitter without its random order."""
    import torch
    n, _, height, width = x.shape
    crop = int(crop)
    x = torch.where((torch.rand(n) < flip)[:, None, None, None], x.flip(3), x)
    padded = torch.nn.functional.pad(x, [crop] * 4)
    corners = torch.randint(0, 2 * crop + 1, (n, 2)).tolist()
    x = torch.stack([p[:, top : top + height, left : left + width] for p, (top, left) in zip(padded, corners)])

    def factor(spread):
        return (1 + (torch.rand(n) * 2 - 1) * spread)[:, None, None, None]
    x = (x * factor(brightness)).clamp(0, 255)
    gray = (x * torch.tensor([0.2989, 0.587, 0.114])[None, :, None, None]).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    f = factor(contrast)
    return (f * x + (1 - f) * gray).clamp(0, 255)


def samples(path):
    """All inputs and classes of an .npz or of a folder of square pictures with a folder a class, these 224 pixels wide."""
    import torch
    if path.endswith(".npz"):
        part = np.load(path)
        return torch.from_numpy(part["x"]), torch.from_numpy(part["y"])
    from PIL import Image
    classes = sorted(os.listdir(path))
    files = [(os.path.join(path, c, f), y) for y, c in enumerate(classes) for f in sorted(os.listdir(os.path.join(path, c)))]
    pictures = [np.asarray(Image.open(f).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)) for f, _ in files]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), torch.tensor([y for _, y in files])


def model_of(args, name, keys, first, seed, classes):
    """The network, and the parameters that are learnt."""
    import torch
    from onnx_torch import Classifier
    if first[0] == "new":
        model = network(first)
        return model, list(model.parameters())
    if first[0] == "after":
        result, (_, before, _) = result_of(first[1], seed, "pt"), recipe_of(first[1])
        if not os.path.exists(result):
            run_torch(args, first[1], seed)
        model = Classifier(before["model"])
        model.replace_head(classes)
        model.load_state_dict(torch.load(result))
    else:
        model = Classifier(keys["model"])
    head = model.replace_head(classes) if keys.get("replace-head") else []
    patterns = [p for text in keys.get("freeze", []) for p in text.split(",")]
    frozen = lambda tensor: tensor not in head and any(fnmatch.fnmatchcase(tensor, p) for p in patterns)
    if not all(map(frozen, model.statistics)):
        sys.exit(f"{name}: batch normalization that learns is not written in PyTorch here")
    for tensor, weight in model.weights.items():
        weight.requires_grad_(not frozen(tensor))
    return model, [w for w in model.parameters() if w.requires_grad]


def run_torch(args, name, seed):
    import torch
    _, keys, first = recipe_of(name)
    torch.set_num_threads(args.threads)
    torch.manual_seed(seed)
    (x, y), (x_val, y_val) = (samples(keys[key]) for key in ("data", "val"))
    model, learnt = model_of(args, name, keys, first, seed, len(y.unique()))
    optimizer = {"adamw": torch.optim.AdamW}[keys["optim"]](learnt, lr=keys["lr"])
    batch, epochs = keys["batch-size"], keys["epochs"]
    mean, scale = (keys.get(key, [default])[0] for key, default in (("mean", 0.0), ("scale", 1.0)))
    began = time.perf_counter()
    steps = -(-len(x) // batch)
    schedules = {"cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)}
    schedule = schedules[keys["schedule"]]() if "schedule" in keys else None
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(x)).split(batch):
            inputs = x[rows].float()
            inputs = (augmented(inputs, keys["augment"]) if "augment" in keys else inputs).sub(mean).mul(scale)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), y[rows]).backward()
            optimizer.step()
            if schedule:
                schedule.step()
    seconds = time.perf_counter() - began
    model.eval()
    torch.save(model.state_dict(), result_of(name, seed, "pt"))
    with torch.no_grad():
        predicted = torch.cat([model(rows.float().sub(mean).mul(scale)).argmax(1) for rows in x_val.split(64)])
        return 100 * (predicted == y_val).double().mean().item(), seconds


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
