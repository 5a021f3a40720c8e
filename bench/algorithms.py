#!/usr/bin/env python3
"""What each algorithm is good for: networks with and without it, and the layer that gains most.

    algorithms.py measure [--only a,b] [--rounds 3] [--seconds 0.5] [--out target/bench/algorithms.json] [--nncc PATH] [--models FOLDER]
    algorithms.py report [--out target/bench/algorithms.json] [--check]

For each name of `nncc --disable` (docs/performance.md lists them, written from the code) `measure` builds NETWORKS' network twice,
with everything and without the one algorithm, for this machine's CPU. `nncc bench LIBRARY --roofline --json` then runs both in
turns on one pinned core; a figure is the median over the rounds of its medians. Each run's output must be within TOLERANCE of
the float64 result. Results are added to those in the file.

A layer is what the two builds share: nodes of either that have an ONNX node in common belong together, so that a convolution
with its epilogue stands beside the convolution and the steps behind it; and what only the build without the algorithm has
(a transpose before attention's products) belongs to the layer that it stands in front of, if that one is computed otherwise
as well. The layer that is shown is the one that gains most
time, of those whose code differs: whose steps, or predictions by the cost model, which counts what kernels execute, are others
in `--emit plan`. `report` writes the table between `<!-- bench/algorithms.py: begin -->` and `<!-- .. end -->` in docs/performance.md; --check
writes nothing and fails when it is not what the results give.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import textwrap

from report import DOCUMENT, digits, document_with, table, write

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# The network on which each algorithm is shown.
NETWORKS = {
    "first-layer": "resnet18",
    "direct": "squeezenet1_1",
    "flat-pixels": "mobilenet_v2",
    "matrix-products": "alexnet",
    "asking-ahead": "vit_b_16",
    "depthwise": "mobilenet_v2",
    "transposed-phases": "unet256",
    "winograd": "vgg16",
    "pooling-in-tiles": "vgg16",
    "bands": "mobilenet_v2",
    "attention": "vit_b_16",
    "batch-norm-folding": "resnet50",
    "epilogues": "resnet50",
    "residuals": "resnet50",
    "elementwise-fusion": "densenet121",
    "concat-in-place": "densenet121",
}

# Of the output's range: an algorithm that computes something else is off by far more.
TOLERANCE = 1e-4


def names():
    """What can be left out, from the table that the code has written."""
    with open(DOCUMENT) as f:
        listed = f.read().split("<!-- switches: begin -->")[1].split("<!-- switches: end -->")[0]
    return re.findall(r"^\| `(.+?)` \|", listed, re.MULTILINE)


def build(args, network, library, more):
    """Builds a library; the operators and predicted times of each node's steps."""
    command = [args.nncc, os.path.join(args.models, network + ".onnx"), "--target-cpu", "native", *more]
    subprocess.run([*command, "-o", library], check=True)
    plan = subprocess.run([*command, "--emit", "plan"], check=True, stdout=subprocess.PIPE, text=True).stdout
    steps = {}
    for us, op, node in re.findall(r"^ +([\d.]+) us  (.{16}) \S+  (.*?)(?:  \[.*\])?$", plan, re.MULTILINE):
        steps.setdefault(node, []).append([op.strip(), us])
    return steps


def run(args, network, library, core):
    """One round of a library: milliseconds of a run, and of each node."""
    data = os.path.join(args.models, network)
    command = [args.nncc, "bench", library, "--roofline", "--json", "--seconds", str(args.seconds)]
    command += ["--input", f"input={data}.in.npy", "--expect", f"{data}.f64.npy"]
    out = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    ).stdout
    found = json.loads(out)
    if not found["reldiff"] <= TOLERANCE:
        sys.exit(f"{library}: the output is {found['reldiff']:.1e} of its range off")
    nodes = {}
    for node in found["roofline"]["nodes"]:
        nodes[node["name"]] = nodes.get(node["name"], 0) + node["us"] / 1e3
    return {"ms": found["median_ms"], "nodes": nodes, "reldiff": found["reldiff"], "machine": found["roofline"]["limits"]}


def median_of(rounds):
    ms = statistics.median(r["ms"] for r in rounds)
    nodes = {n: statistics.median(r["nodes"][n] for r in rounds) for n in rounds[0]["nodes"]}
    return {"ms": ms, "nodes": nodes, "reldiff": max(r["reldiff"] for r in rounds)}


def measure(args):
    results = {"machine": None, "algorithms": {}}
    if os.path.exists(args.out):
        with open(args.out) as f:
            results = json.load(f)
    core = max(os.sched_getaffinity(0))
    for name in args.only or names():
        network = NETWORKS[name]
        with tempfile.TemporaryDirectory() as folder:
            libraries = {side: os.path.join(folder, f"{network}_{side}.so") for side in ("off", "on")}
            steps = {
                "off": build(args, network, libraries["off"], ["--disable", name]),
                "on": build(args, network, libraries["on"], []),
            }
            rounds = {"off": [], "on": []}
            for _ in range(args.rounds):
                for side, library in libraries.items():
                    rounds[side].append(run(args, network, library, core))
        results["machine"] = rounds["on"][0]["machine"]
        found = {"network": network, **{side: {**median_of(rounds[side]), "steps": steps[side]} for side in rounds}}
        results["algorithms"][name] = found
        layer, off, on = best(found)
        print(f"{name:20} {network:16} {found['off']['ms']:9.3f} {found['on']['ms']:9.3f} ms   {layer}: {off:.3f} {on:.3f}", flush=True)
        os.makedirs(os.path.dirname(args.out), exist_ok=True)
        with open(args.out, "w") as f:
            json.dump(results, f, indent=1)


def layers(found):
    """What both sides have in common, in the order of the side without the algorithm: name, milliseconds, steps."""
    leader = {}

    def find(part):
        while leader.setdefault(part, part) != part:
            part = leader[part]
        return part

    sides = [(side, name, ms) for side in ("off", "on") for name, ms in found[side]["nodes"].items()]
    for _, name, _ in sides:
        first, *others = name.split("+")
        for part in others:
            leader[find(part)] = find(first)
    groups = {}
    for side, name, ms in sides:
        group = groups.setdefault(find(name.split("+")[0]), {"name": "", "off": 0, "on": 0, "steps": {"off": [], "on": []}})
        group[side] += ms
        group["name"] = name  # of the build that has everything, if it has the layer
        group["steps"][side] += found[side]["steps"].get(name, [])
    merged, waiting = [], []
    for group in groups.values():
        if not group["steps"]["on"]:
            waiting.append(group)
            continue
        for other in waiting if is_changed(group) else []:
            group["off"] += other["off"]
            group["steps"]["off"] += other["steps"]["off"]
        merged += [group] if is_changed(group) else [*waiting, group]
        waiting = []
    return merged + waiting


def is_changed(layer):
    return sorted(layer["steps"]["off"]) != sorted(layer["steps"]["on"])


def best(found):
    """The layer that gains most: its name, milliseconds off and on."""
    group = max(filter(is_changed, layers(found)), key=lambda g: g["off"] - g["on"])
    parts = group["name"].split("+")
    layer = parts[0] if len(parts) == 1 else f"{parts[0]} .. {parts[-1]}"
    return layer.replace("|", "/"), group["off"], group["on"]


def text(results):
    found, rows = results["algorithms"], []
    for name in [n for n in names() if n in found]:
        layer, off, on = best(found[name])
        whole = [digits(found[name][side]["ms"]) for side in ("off", "on")]
        rows.append([name, found[name]["network"], f"`{layer}`", digits(off), digits(on), *whole])
    machine = results["machine"]
    setting = f"{machine['cpu']}, {machine['level']}, one pinned core, milliseconds without and with each algorithm, in turns: of the "
    setting += "layer that gains most, and of the whole network."
    heads = ["algorithm", "network", "layer", "off, ms", "on, ms", "network off", "on"]
    return textwrap.fill(setting, 120) + "\n\n" + table(heads, rows)


def report(args):
    with open(args.out) as f:
        found = text(json.load(f))
    write({DOCUMENT: document_with("algorithms.py", found)}, args.out, args.check)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "report"])
    parser.add_argument("--models", default=os.path.join(ROOT, "target/networks"))
    parser.add_argument("--only", type=lambda s: s.split(","))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--nncc", default=os.path.join(ROOT, "target/release/nncc"))
    parser.add_argument("--out", default=os.path.join(ROOT, "target/bench/algorithms.json"))
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    missing = [name for name in names() if name not in NETWORKS]
    if missing:
        sys.exit(f"NETWORKS says nothing of {', '.join(missing)}")
    {"measure": measure, "report": report}[args.what](args)


if __name__ == "__main__":
    main()
