#!/usr/bin/env python3
"""Latency of nncc and other inference engines on the same networks, measured side by side.

    compare.py [--models FOLDER] [--networks a,b] [--engines a,b] [--threads 1] [--nncc PATH] [--out FILE.json]

For each network every engine is a process of its own, pinned to the same processors (`nncc bench LIB --worker` for nncc,
engines.py for the others). It loads the network, checks its output against the float64 result, and waits. Then the engines
are asked in turn, round after round, for one window of runs each: what a noisy neighbour, a warm cache or a falling clock
does to one, it does to all. The figure of an engine is the median of its windows' medians; figures of one run may be
compared, those of different runs or machines may not.

Results go to a JSON file, network by network; a later call adds to it. `report.py` makes the tables from it.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)

# In the order of the tables.
NETWORKS = [
    "lenet5", "squeezenet1_1", "mobilenet_v2", "shufflenet_v2_x1_0", "efficientnet_b0", "googlenet", "alexnet", "resnet18",
    "resnet50", "seresnet50", "densenet121", "vgg16", "inception_v3", "vit_b_16",
]

# Engine -> the package that says its version.
PEERS = {"onnxruntime": "onnxruntime", "openvino": "openvino", "ncnn": "ncnn", "mnn": "MNN", "pytorch": "torch"}

# An output that is further off than this is of another network, or broken: no time of it counts.
WRONG = 1e-2


class Worker:
    """A process that has loaded a network and answers windows."""

    def __init__(self, command, processors, threads):
        # Libraries that look at these settings take them over what they are told in code.
        count = str(threads)
        environment = dict(os.environ, OMP_NUM_THREADS=count, MKL_NUM_THREADS=count, OPENBLAS_NUM_THREADS=count)
        # A file, for a pipe that nobody reads would stop an engine that says much.
        self.complaints = tempfile.TemporaryFile("w+")
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            text=True,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, processors),
        )

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.complaints.seek(0)
            said = self.complaints.read().strip().splitlines()
            raise RuntimeError(said[-1] if said else f"ended with {self.process.returncode}")
        return json.loads(line)

    def ask(self, seconds):
        print(seconds, file=self.process.stdin, flush=True)
        return self.read()

    def peak_resident_mb(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def versions(nncc):
    found = {"nncc": subprocess.run([nncc, "--version"], capture_output=True, text=True).stdout.split()[-1:]}
    found["nncc"] = found["nncc"][0] if found["nncc"] else ""
    for engine, package in PEERS.items():
        try:
            found[engine] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def prepare(args, network, engine):
    """Makes what the engine deploys; gives the command of its worker."""
    path = os.path.join(args.models, network)
    model, given, expected = path + ".onnx", path + ".in.npy", path + ".f64.npy"
    count = str(args.threads)
    if engine == "nncc":
        library = os.path.join(args.cache, "nncc", network + ".so")
        os.makedirs(os.path.dirname(library), exist_ok=True)
        # Always anew: nncc is what changes between two calls.
        compiled = subprocess.run([args.nncc, model, "--emit", "so", "-o", library], capture_output=True, text=True)
        if compiled.returncode != 0:
            raise RuntimeError(compiled.stderr.strip())
        name = json.loads(subprocess.check_output([args.nncc, "inspect", model, "--json"]))["inputs"][0]["name"]
        options = ["--input", f"{name}={given}", "--expect", expected, "--threads", count, "--worker"]
        return [args.nncc, "bench", library, *options]
    command = [sys.executable, os.path.join(HERE, "engines.py"), engine, model, given, expected]
    command += ["--cache", args.cache, "--threads", count]
    converted = subprocess.run([*command, "--convert"], capture_output=True, text=True)
    if converted.returncode != 0:
        said = converted.stderr.strip().splitlines()
        raise RuntimeError("conversion: " + (said[-1] if said else str(converted.returncode)))
    return command


def measure(args, network):
    """One network on all engines."""
    cells, live = {}, {}
    for engine in args.engines:
        cells[engine] = {}
        try:
            worker = Worker(prepare(args, network, engine), args.processors, args.threads)
            cells[engine] = worker.read()
            cells[engine]["process_ms"] = (time.perf_counter() - worker.started) * 1e3
            if not cells[engine]["reldiff"] < WRONG:
                worker.close()
                raise RuntimeError(f"wrong output: off by {cells[engine]['reldiff']:.1e} of the range")
            live[engine] = worker
        except (RuntimeError, OSError, ValueError) as error:
            cells[engine]["error"] = str(error)
            print(f"{network}: {engine}: {error}", file=sys.stderr)
    windows = {engine: {"wall": [], "cpu": []} for engine in live}
    for _ in range(args.rounds):
        for engine, worker in live.items():
            answer = worker.ask(args.window)
            for clock, runs in answer.items():
                windows[engine][clock].append(statistics.median(runs))
            if args.threads > 1:
                time.sleep(0.25)  # threads that spin for work go to sleep before the next engine's turn
    for engine, worker in live.items():
        cells[engine]["peak_resident_mb"] = worker.peak_resident_mb()
        for clock, medians in windows[engine].items():
            cells[engine][f"{clock}_ms"] = statistics.median(medians)
            cells[engine][f"{clock}_windows_ms"] = medians
        worker.close()
    return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=os.path.join(ROOT, "target/networks"), help="made by tools/networks.py")
    parser.add_argument("--networks", type=lambda s: s.split(","), default=NETWORKS)
    parser.add_argument("--engines", type=lambda s: s.split(","), default=["nncc", *PEERS])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--window", type=float, default=0.4, help="seconds")
    parser.add_argument("--processors", help="such as 1 or 0,1; default: the last one for one thread, else as many as threads")
    parser.add_argument("--nncc", default=os.path.join(ROOT, "target/release/nncc"))
    parser.add_argument("--cache", default=os.path.join(ROOT, "target/bench"), help="converted models")
    parser.add_argument("--out", default=os.path.join(ROOT, "target/bench/results.json"))
    args = parser.parse_args()
    unknown = set(args.engines) - {"nncc", *PEERS}
    if unknown:
        parser.error(f"no such engine: {', '.join(sorted(unknown))}; there are nncc, {', '.join(PEERS)}")
    available = sorted(os.sched_getaffinity(0))
    chosen = args.processors.split(",") if args.processors else available[-args.threads:]
    args.processors = {int(p) for p in chosen}
    os.makedirs(args.cache, exist_ok=True)

    results = {}
    if os.path.exists(args.out):
        with open(args.out) as file:
            results = json.load(file)
    if results.get("threads", args.threads) != args.threads:
        parser.error(f"{args.out} was measured with {results['threads']} threads: give another --out")
    results.setdefault("networks", {})
    results.update(threads=args.threads, rounds=args.rounds, window_s=args.window, versions=versions(args.nncc))
    for network in args.networks:
        model = os.path.join(args.models, network + ".onnx")
        if not os.path.exists(model):
            parser.error(f"{model} is missing: make it with tools/networks.py {args.models}")
        cells = measure(args, network)
        macs = json.loads(subprocess.check_output([args.nncc, "inspect", model, "--json"]))["macs"]
        results["networks"].setdefault(network, {"engines": {}})
        results["networks"][network]["macs"] = macs
        results["networks"][network]["engines"].update(cells)
        if "nncc" in cells and "error" not in cells["nncc"]:
            # What the machine can do, by nncc's own probes: the CPU's name and the peak for the plot.
            library = os.path.join(args.cache, "nncc", network + ".so")
            command = [args.nncc, "bench", library, "--roofline", "--json", "--seconds", "0", "--threads", str(args.threads)]
            pinned = {"preexec_fn": lambda: os.sched_setaffinity(0, args.processors)}
            limits = json.loads(subprocess.check_output(command, **pinned))["roofline"]["limits"]
            # Load on the machine only lowers what is measured.
            if limits["peak_gflops"] > results.get("machine", {}).get("peak_gflops", 0):
                results["machine"] = limits
        times = [(engine, c["wall_ms"]) for engine, c in cells.items() if "wall_ms" in c]
        print(f"{network:20}", "  ".join(f"{engine} {ms:.3f}" for engine, ms in times), flush=True)
        with open(args.out + ".tmp", "w") as file:
            json.dump(results, file, indent=1)
        os.replace(args.out + ".tmp", args.out)


if __name__ == "__main__":
    main()
