#!/usr/bin/env python3
"""The cost model against the clock: predicted and measured time of every layer.

    predicted.py measure [--networks a,b] [--seconds 1] [--out target/bench/predicted.json] [--nncc PATH] [--models FOLDER]
    predicted.py report [--out target/bench/predicted.json] [--check]

`measure` runs `nncc bench MODEL --roofline --json` on one pinned core for each network and keeps its layers (fused nodes);
results are added to those in the file. `report` writes tables between `<!-- bench/predicted.py: begin -->` and `<!-- .. end
-->` in docs/performance.md; --check writes nothing and fails when they are not what the results give.

The error of a layer is |predicted - measured| / measured. Each layer counts once in a median, whatever its time; the share of
the time spent in layers that are predicted within 25 % stands beside it. The constants of the model (codegen/src/cost) were
fitted to FITTED; OTHERS were only measured.
"""

import argparse
import json
import os
import statistics
import subprocess
import textwrap

from report import DOCUMENT, document_with, table, write

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

FITTED = "lenet5 alexnet vgg16 googlenet squeezenet1_1 resnet18 resnet50 seresnet50 densenet121 mobilenet_v2 vit_b_16".split()
OTHERS = "inception_v3 efficientnet_b0 shufflenet_v2_x1_0 unet256".split()

# An error that is called good, and the share of a network's time from which a layer may be called an outlier.
GOOD, NOTABLE = 0.25, 0.01


def measure(args):
    results = {"machine": None, "networks": {}}
    if os.path.exists(args.out):
        with open(args.out) as f:
            results = json.load(f)
    core = max(os.sched_getaffinity(0))
    for network in args.networks:
        model = os.path.join(args.models, network + ".onnx")
        command = [args.nncc, "bench", model, "--roofline", "--json", "--seconds", str(args.seconds)]
        run = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, {core})
        )
        roofline = json.loads(run.stdout)["roofline"]
        results["machine"] = results["machine"] or roofline["limits"]
        keep = ("name", "op", "us", "predicted_us", "macs")
        layers = [{k: n[k] for k in keep} for n in roofline["nodes"] if n["predicted_us"]]
        results["networks"][network] = layers
        print(f"{network:20} {summary(layers)}", flush=True)
        os.makedirs(os.path.dirname(args.out), exist_ok=True)
        with open(args.out, "w") as f:
            json.dump(results, f, indent=1)


def error(layer):
    return abs(layer["predicted_us"] / layer["us"] - 1)


def total(layers, field="us"):
    return sum(layer[field] for layer in layers)


def within(layers):
    """The share of the time spent in layers that are predicted well."""
    return total([n for n in layers if error(n) <= GOOD]) / total(layers)


def summary(layers):
    predicted, measured = total(layers, "predicted_us"), total(layers)
    return (
        f"{len(layers):4} layers, median error {100 * statistics.median(map(error, layers)):3.0f} %, "
        f"{100 * within(layers):3.0f} % of the time within 25 %, {predicted:.0f} us for {measured:.0f}"
    )


def kind(layer):
    """What the steps of a layer do, as one word."""
    op = layer["op"]
    return "winograd" if "winograd" in op else op.split(",")[0].lower()


def row(title, layers):
    predicted, measured = total(layers, "predicted_us"), total(layers)
    errors = sorted(map(error, layers))
    return [
        title,
        str(len(layers)),
        f"{measured / 1e3:.2f}",
        f"{predicted / 1e3:.2f}",
        f"{100 * statistics.median(errors):.0f} %",
        f"{100 * errors[len(errors) * 9 // 10]:.0f} %",
        f"{100 * within(layers):.0f} %",
    ]


def tables(results):
    found = results["networks"]
    groups = [(title, [n for n in names if n in found]) for title, names in [("fitted", FITTED), ("not fitted", OTHERS)]]
    heads = ["", "layers", "measured, ms", "predicted, ms", "median error", "9 of 10 within", "of the time within 25 %"]
    rows = []
    for title, names in groups:
        rows += [row(n, found[n]) for n in names]
        rows.append(row(f"**all {title}**", [layer for n in names for layer in found[n]]))
    layers = [dict(layer, network=n) for n in found for layer in found[n]]
    kinds = sorted({kind(n) for n in layers}, key=lambda k: -total([n for n in layers if kind(n) == k]))
    by_kind = [row(k, [n for n in layers if kind(n) == k]) for k in kinds]
    notable = [n for n in layers if n["us"] > NOTABLE * total(found[n["network"]]) and error(n) > GOOD]
    worst = [
        [n["network"], n["name"][:60].replace("|", "/"), n["op"], f"{n['us']:.1f}", f"{n['predicted_us']:.1f}"]
        for n in sorted(notable, key=error, reverse=True)[:12]
    ]
    machine = results["machine"]
    reads = ", ".join(f"{m['name']} {m['gb_per_s']:.0f}" for m in machine["memory"])
    setting = f"{machine['cpu']}, {machine['level']}, one pinned core: peak {machine['peak_gflops']:.0f} GFLOP/s "
    setting += f"({machine['ghz']:.2f} GHz); reads, GB/s: {reads}. Medians of each layer's runs."
    outliers = f"Layers of more than 1 % of their network's time that are more than 25 % off: {len(notable)} of "
    outliers += f"{sum(n['us'] > NOTABLE * total(found[n['network']]) for n in layers)}. The farthest, in microseconds:"
    parts = [textwrap.fill(setting, 120), table(heads, rows), "By what a layer does, all networks:", table(heads, by_kind)]
    parts += [textwrap.fill(outliers, 120), table(["network", "layer", "operator", "measured", "predicted"], worst)]
    return "\n\n".join(parts)


def report(args):
    with open(args.out) as f:
        text = tables(json.load(f))
    write({DOCUMENT: document_with("predicted.py", text)}, args.out, args.check)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "report"])
    parser.add_argument("--models", default=os.path.join(ROOT, "target/networks"))
    parser.add_argument("--networks", type=lambda s: s.split(","), default=FITTED + OTHERS)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--nncc", default=os.path.join(ROOT, "target/release/nncc"))
    parser.add_argument("--out", default=os.path.join(ROOT, "target/bench/predicted.json"))
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    {"measure": measure, "report": report}[args.what](args)


if __name__ == "__main__":
    main()
