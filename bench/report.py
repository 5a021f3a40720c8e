#!/usr/bin/env python3
"""The results of compare.py as tables and a plot in docs/performance.md.

    report.py RESULTS.json [--clock wall|cpu] [--check]

Replaces what stands between `<!-- bench/report.py: begin -->` and `<!-- bench/report.py: end -->` in docs/performance.md,
and writes docs/speed.svg: for each network a row, in which each engine stands at its time divided by nncc's. --check writes
nothing and fails when the two are not what the results give.
"""

import argparse
import json
import math
import os
import sys
import textwrap

from compare import NETWORKS, ROOT

NAMES = {"nncc": "nncc", "onnxruntime": "onnxruntime", "openvino": "OpenVINO", "ncnn": "ncnn", "mnn": "MNN", "pytorch": "PyTorch"}
DOCUMENT = os.path.join(ROOT, "docs/performance.md")
PLOT = os.path.join(ROOT, "docs/speed.svg")

# For both grounds: one colour and one shape an engine, so that neither alone must tell.
MARKS = {
    "onnxruntime": ("#4c78d8", "circle"),
    "openvino": ("#d9a520", "square"),
    "ncnn": ("#3fa36b", "triangle"),
    "mnn": ("#e2703f", "diamond"),
    "pytorch": ("#a45fd0", "cross"),
}


def digits(x):
    """Three significant digits, as a table wants them."""
    return f"{x:.0f}" if x >= 99.5 else f"{x:.{max(0, 2 - math.floor(math.log10(x)))}f}" if x > 0 else "0"


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def lowest_in_bold(values):
    """Cells of numbers, `-` where there is none."""
    known = [v for v in values if v is not None]
    return ["-" if v is None else f"**{digits(v)}**" if v == min(known) else digits(v) for v in values]


class Results:
    """What was measured, by network in the order of the tables."""

    def __init__(self, data, clock):
        self.data, self.clock = data, clock
        found = data["networks"]
        self.networks = [n for n in NETWORKS if n in found] + sorted(set(found) - set(NETWORKS))
        self.engines = [e for e in NAMES if any(e in found[n]["engines"] for n in self.networks)]

    def cell(self, network, engine, field):
        return self.data["networks"][network]["engines"].get(engine, {}).get(field)

    def time(self, network, engine):
        return self.cell(network, engine, f"{self.clock}_ms")

    def ratio(self, network, engine):
        """How many times nncc's an engine's time is."""
        theirs, ours = self.time(network, engine), self.time(network, "nncc")
        return theirs / ours if theirs and ours else None

    def fastest_other(self, network):
        ratios = [self.ratio(network, e) for e in self.engines if e != "nncc"]
        return min((r for r in ratios if r), default=None)


def setting(r):
    machine, versions = r.data.get("machine", {}), r.data["versions"]
    names = ", ".join(f"{NAMES[e]} {versions[e]}" for e in r.engines if e in versions)
    threads = r.data["threads"]
    on = "one thread on one pinned core" if threads == 1 else f"{threads} threads on as many pinned cores"
    clock = "clock time" if r.clock == "wall" else "processor time"
    text = f"{machine.get('cpu', 'Unknown CPU')}, {machine.get('level', '')}, {on}, batch 1, f32; {names}. "
    text += f"Medians of {r.data['rounds']} windows of {r.data['window_s']} s, asked in turn, {clock} in ms. "
    if machine:
        text += f"The measured FMA peak is {machine['peak_gflops']:.0f} GFLOP/s"
        reads = ", ".join(f"{m['name']} {m['gb_per_s']:.0f}" for m in machine["memory"])
        text += f"; reads, GB/s: {reads}. Per cent of it count the direct algorithm's multiply-adds: Winograd may pass 100."
    return textwrap.fill(text, 120)


def times(r):
    peak = r.data.get("machine", {}).get("peak_gflops")
    rows = []
    for n in r.networks:
        macs, ours, other = r.data["networks"][n]["macs"], r.time(n, "nncc"), r.fastest_other(n)
        row = [n, digits(macs / 1e9), *lowest_in_bold([r.time(n, e) for e in r.engines])]
        row.append(f"{other:.2f}" if other else "-")
        row.append(f"{100 * 2 * macs / (ours * 1e6) / peak:.0f} %" if peak and ours else "-")
        rows.append(row)
    heads = ["network", "GMAC", *(NAMES[e] for e in r.engines), "fastest other / nncc", "of peak"]
    return table(heads, rows)


def means(r):
    sentences = []
    for what, ratios in [
        ("onnxruntime", [r.ratio(n, "onnxruntime") for n in r.networks]),
        ("the fastest other engine on each network", [r.fastest_other(n) for n in r.networks]),
    ]:
        known = [x for x in ratios if x]
        if known:
            sentences.append(f"{geometric_mean(known):.2f} times as fast as {what}")
    text = f"Geometric means over the networks: nncc is {' and '.join(sentences)}."
    return textwrap.fill(text, 120) if sentences else ""


def others(r):
    """Start, memory and accuracy: a table each."""

    def start(n, e):
        load, first = r.cell(n, e, "load_ms"), r.cell(n, e, "first_ms")
        return None if load is None or first is None else load + first

    heads = ["network", *(NAMES[e] for e in r.engines)]
    parts = []
    for title, cells in [
        ("From the file to the first result, ms:", lambda n: lowest_in_bold([start(n, e) for e in r.engines])),
        (
            "Peak resident memory of the process, MB:",
            lambda n: lowest_in_bold([r.cell(n, e, "peak_resident_mb") for e in r.engines]),
        ),
        (
            "Largest difference from the float64 result, as a share of its range:",
            lambda n: ["-" if d is None else f"{d:.1e}" for d in (r.cell(n, e, "reldiff") for e in r.engines)],
        ),
    ]:
        parts.append(title + "\n\n" + table(heads, [[n, *cells(n)] for n in r.networks]))
    return "\n\n".join(parts)


def mark(shape, x, y, color):
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y}" r="5.5" fill="{color}"/>'
    path = {
        "square": "m-5 -5h10v10h-10z",
        "triangle": "m0 -6.5l6 11h-12z",
        "diamond": "m0 -7l6 7l-6 7l-6 -7z",
        "cross": "m-5 -5l10 10m0 -10l-10 10",
    }[shape]
    paint = f'fill="none" stroke="{color}" stroke-width="2.5"' if shape == "cross" else f'fill="{color}"'
    return f'<path d="M{x:.1f} {y}{path}" {paint}/>'


def plot(r):
    """A row a network, an engine at its time over nncc's, on a logarithmic scale."""
    left, right, top, row = 150, 870, 70, 27
    ratios = [x for n in r.networks for e in r.engines if (x := r.ratio(n, e))]
    low, high = 0.9 * min([*ratios, 1]), 1.1 * max([*ratios, 2])

    def at(x):
        return left + (right - left) * math.log(x / low) / math.log(high / low)

    bottom = top + row * len(r.networks)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 {bottom + 44}" font-family="system-ui, sans-serif" font-size="13">',
        "<style>text{fill:#1c1e21}.grid{stroke:#dfe2e6}.one{stroke:#1c1e21}"
        "@media (prefers-color-scheme:dark){text{fill:#e6e8eb}.grid{stroke:#3a3f46}.one{stroke:#e6e8eb}}</style>",
    ]
    cpu, threads = r.data.get("machine", {}).get("cpu", ""), r.data["threads"]
    title = f"Time relative to nncc, {threads} thread{'s' if threads > 1 else ''}, {cpu}".replace("&", "&amp;").replace("<", "&lt;")
    out.append(f'<text x="{left}" y="20" font-weight="600">{title}</text>')
    x = left
    for engine in r.engines:
        if engine in MARKS:
            color, shape = MARKS[engine]
            out.append(mark(shape, x + 6, 42, color))
            out.append(f'<text x="{x + 18}" y="46.5">{NAMES[engine]}</text>')
            x += 40 + 8 * len(NAMES[engine])
    for tick in (0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16):
        if low <= tick <= high:
            kind = "one" if tick == 1 else "grid"
            out.append(f'<path class="{kind}" d="M{at(tick):.1f} {top - 8}V{bottom}" fill="none"/>')
            label = "nncc" if tick == 1 else tick
            out.append(f'<text x="{at(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
    middle = (left + right) / 2
    out.append(f'<text x="{middle}" y="{bottom + 38}" text-anchor="middle">time as a multiple of nncc</text>')
    for i, n in enumerate(r.networks):
        y = top + row * i + row / 2
        out.append(f'<text x="{left - 14}" y="{y + 4.5}" text-anchor="end">{n}</text>')
        out.append(f'<path class="grid" d="M{left} {y}H{right}" fill="none"/>')
        for engine in r.engines:
            ratio = r.ratio(n, engine)
            if engine in MARKS and ratio:
                color, shape = MARKS[engine]
                out.append(mark(shape, at(ratio), y, color))
    return "\n".join([*out, "</svg>"]) + "\n"


def section(r):
    parts = [setting(r), times(r), means(r), "![Time of each engine relative to nncc, by network](speed.svg)", others(r)]
    return "\n\n".join(p for p in parts if p)


def document_with(script, text):
    """The document with the text between the marks of a script."""
    begin, end = (f"<!-- bench/{script}: {mark} -->" for mark in ("begin", "end"))
    with open(DOCUMENT) as file:
        document = file.read()
    if begin not in document or end not in document:
        sys.exit(f"{DOCUMENT} has no place for the results: {begin} ... {end}")
    before, rest = document.split(begin, 1)
    after = rest.split(end, 1)[1]
    return f"{before}{begin}\n{text}\n{end}{after}"


def write(files, source, check):
    """Writes texts to their paths; with `check` writes nothing and fails where one is not what is there."""
    for path, text in files.items():
        if check:
            if not os.path.exists(path) or open(path).read() != text:
                sys.exit(f"{path} is not what {source} gives")
        else:
            with open(path, "w") as file:
                file.write(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    with open(args.results) as file:
        r = Results(json.load(file), args.clock)
    write({DOCUMENT: document_with("report.py", section(r)), PLOT: plot(r)}, args.results, args.check)


if __name__ == "__main__":
    main()
