#!/usr/bin/env python3
"""Cold start of nncc and other engines: from the start of a process to its first result, pages in the file cache.

    cold.py [--networks lenet5,resnet50] [--engines nncc,onnxruntime] [--rounds 11] [the paths of compare.py]

Each round starts every engine's process of compare.py anew, one after the other, reads the line that it prints behind its
first inference, and asks it for one warm window. A figure is the least over the rounds, for a start has one way to go well
and many to be disturbed:

    process   from the start of the process to that line: the interpreter and imports for engines that are Python packages
    load      what a program does to have the network ready
    first     the first inference
    warm      a later one, in the same process
    excess    of the first over a warm one: page faults, cold caches; the median over the rounds
"""

import argparse
import os
import statistics
import time

import compare


def measure(args, command):
    """One process: milliseconds of each column."""
    worker = compare.Worker(command, args.processors, args.threads)
    cell = worker.read()
    process = (time.perf_counter() - worker.started) * 1e3
    if not cell["reldiff"] < compare.WRONG:
        raise RuntimeError(f"wrong output: off by {cell['reldiff']:.1e} of the range")
    warm = statistics.median(worker.ask(args.window)["wall"])
    worker.close()
    first = cell["first_ms"]
    return {"process": process, "load": cell["load_ms"], "first": first, "warm": warm, "excess": first - warm}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=os.path.join(compare.ROOT, "target/networks"))
    parser.add_argument("--networks", type=lambda s: s.split(","), default=["lenet5", "resnet50"])
    parser.add_argument("--engines", type=lambda s: s.split(","), default=["nncc", "onnxruntime"])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--window", type=float, default=0.4, help="seconds")
    parser.add_argument("--nncc", default=os.path.join(compare.ROOT, "target/release/nncc"))
    parser.add_argument("--cache", default=os.path.join(compare.ROOT, "target/bench"), help="converted models")
    args = parser.parse_args()
    args.threads, args.processors = 1, {max(os.sched_getaffinity(0))}
    os.makedirs(args.cache, exist_ok=True)
    for network in args.networks:
        commands = {engine: compare.prepare(args, network, engine) for engine in args.engines}
        rounds = {engine: [] for engine in args.engines}
        for _ in range(args.rounds):
            for engine, command in commands.items():
                rounds[engine].append(measure(args, command))
        print(f"{network:20}", *(f"{column:>9}" for column in rounds[args.engines[0]][0]), "  ms")
        for engine, cells in rounds.items():
            figures = {column: min(cell[column] for cell in cells) for column in cells[0]}
            figures["excess"] = statistics.median(cell["excess"] for cell in cells)
            print(f"  {engine:18}", *(f"{figure:9.3f}" for figure in figures.values()), flush=True)


if __name__ == "__main__":
    main()
