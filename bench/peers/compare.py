"""Every network at paper size in every engine, taking turns with voxlab: speed, memory and difference from f64.

Engines are processes that stay alive and do one repetition for each "go", so all are warm, and whatever else the
machine does meets all. Only one of them works at a time. See README.md.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from engines import ENGINES, MODES, NETWORKS, PRECISIONS, command, offers
from kernels import by_kernel
from process import Failed, Worker
from record import ROOT, machine, output_of, revision, write
from table import markdown

ROUNDS = {"infer": 11, "train": 5, "volume": 3}


def summary(values):
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": median, "quartiles": [low, high], "min": min(values), "max": max(values), "n": len(values)}


def prepared(options, net):
    """The folder with the network's weights, inputs, reference and ONNX file; made once."""
    files = options.files / net
    name, variant = net.split("/")
    weights, onnx = files / "weights.safetensors", files / "net.onnx"
    if not (files / "reference.safetensors").exists():
        print(f"{net}: weights, inputs, reference in f64", file=sys.stderr)
        line = [options.python, HERE / "prepare.py", "--net", net, "--files", files, "--threads", options.threads]
        output_of(line, f"compare: {net}")
    if not weights.exists():
        line = [options.voxlab, "import", "--net", name, "--variant", variant, files / "weights.pth", weights]
        output_of(line, f"compare: {net}")
    if not onnx.exists():
        line = [options.voxlab, "export", "--net", name, "--variant", variant, "--weights", weights, "--onnx", onnx]
        output_of([*line, "--threads", options.threads], f"compare: {net}")
    return files


def difference(files, logits):
    """Largest deviation from the f64 reference over its largest value."""
    import numpy
    from safetensors.numpy import load_file

    exact = load_file(files / "reference.safetensors")["logits"]
    got = load_file(logits)["logits"].astype(numpy.float64)
    if got.shape != exact.shape:
        raise Failed(f"logits {got.shape}, expected {exact.shape}")
    worst = numpy.abs(got - exact).max() / numpy.abs(exact).max()
    if not numpy.isfinite(worst):
        raise Failed("logits are not finite")
    return float(worst)


def start(options, engine, net, mode, precision, files):
    """A warm worker with its peak memory and its difference."""
    logits = files / f"{mode}.{engine}.{precision}.logits"
    print(f"{net} {mode} {precision}: warming {engine}", file=sys.stderr)
    line = command(options, engine, net, mode, precision, files, logits)
    worker = Worker(line, options.threads, files / f"{mode}.{engine}.{precision}.log", options.limit)
    try:
        for _ in range(options.warmup):
            worker.go()
        worker.resident = worker.status_bytes("VmHWM")
        worker.difference = difference(files, logits) if mode == "infer" else None
    except Failed:
        worker.stop()
        raise
    finally:
        logits.unlink(missing_ok=True)
    return worker


def fill(options, net, mode, precision, files, waiting, failed):
    """voxlab and as many of the waiting engines as the memory holds, each thought as large as the largest so far."""
    workers = {"voxlab": start(options, "voxlab", net, mode, precision, files)}
    while waiting:
        sizes = [w.resident for w in workers.values()]
        if len(workers) > 1 and sum(sizes) + 1.2 * max(sizes) > options.memory * 2**30:
            break
        engine = waiting.pop(0)
        try:
            workers[engine] = start(options, engine, net, mode, precision, files)
        except Failed as reason:
            failed[engine] = {"failed": str(reason)}
            print(f"{net} {mode} {precision} {engine}: failed: {reason}", file=sys.stderr)
    return workers


def rounds(options, workers, mode, label):
    """Pairs of repetitions in turn -> seconds of each engine's second ones and what it said of itself.

    The first of a pair finds its memory cold after the others' work: on a virtual machine that idled for 4 s, 0.1 to
    0.3 s a GiB, whichever engine it is. That is not what a loop over steps or images pays.
    """
    seconds, about = {name: [] for name in workers}, {}
    number = options.rounds or ROUNDS[mode]
    for index in range(number):
        for name, worker in workers.items():
            time.sleep(0.1)  # the others' waiting threads stop spinning and leave the cores
            worker.go()
            answer = worker.go()
            seconds[name].append(answer["seconds"])
            about[name] = answer.get("implementation", name)
            if "precision" in answer:
                about[name] += f", {answer['precision']}"
        times = ", ".join(f"{name} {values[-1]:.3f}" for name, values in seconds.items())
        print(f"{label} {index + 1}/{number}: {times} s", file=sys.stderr)
    return seconds, about


def group(options, net, mode, precision, files, waiting):
    """One group, voxlab and what fits beside it: entries by engine. Takes engines off `waiting`."""
    entries, workers = {}, {}
    try:
        workers = fill(options, net, mode, precision, files, waiting, entries)
        seconds, about = rounds(options, workers, mode, f"{net} {MODES[mode]} {precision}")
        for name, worker in workers.items():
            entries[name] = {
                "implementation": about[name],
                "seconds": summary(seconds[name]),
                "repetitions": seconds[name],
                "peak_resident_bytes": worker.resident,
                "peak_anonymous_bytes": worker.peak_anonymous(),
                "difference": worker.difference,
                "revision": revision(),
            }
            if name != "voxlab":
                entries[name]["voxlab"] = summary(seconds["voxlab"])
                paired = [theirs / ours for theirs, ours in zip(seconds[name], seconds["voxlab"], strict=True)]
                entries[name]["ratio"] = {
                    "of_medians": entries[name]["seconds"]["median"] / entries[name]["voxlab"]["median"],
                    "paired": summary(paired),
                }
    finally:
        for worker in workers.values():
            worker.stop()
    return entries


def peaks(options):
    """`voxlab peaks`, or None from a build that has no such command."""
    line = [options.voxlab, "peaks", "--json", "--threads", str(options.threads)]
    done = subprocess.run(line, capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 and done.stdout.startswith("{") else None


def multiply_adds(options, net):
    name, variant = net.split("/")
    counts = json.loads(output_of([options.voxlab, "count", name, "--variant", variant, "--json"], f"compare: {net}"))
    return {
        "infer": counts["inference"]["count"],
        "train": counts["training_step"]["count"] * NETWORKS[net],
    }


def plan(options, net, mode, precision):
    """What the calls of our plan take, kernel by kernel, and their bounds (`voxlab profile`); None of whole volumes."""
    flags = {"infer": [], "train": ["--train", "--batch", str(NETWORKS[net])]}.get(mode)
    if flags is None:
        return None
    name, variant = net.split("/")
    line = [options.voxlab, "profile", name, "--variant", variant, *flags, "--json", "--depth", "0"]
    line += ["--precision", "auto" if precision == "f32" else precision, "--threads", str(options.threads)]
    found = json.loads(output_of(line, f"compare: {net} {mode} {precision}"))
    kernels = [
        {"kernel": f"{kernel} {direction}", "op": op, "seconds": work["seconds"], "bound_seconds": work["bound_seconds"]}
        for (direction, op, kernel), work in by_kernel(found)
    ]
    return {
        "end_to_end_seconds": found["end_to_end_seconds"],
        "bound_seconds": sum(kernel["bound_seconds"] for kernel in kernels),
        "kernels": kernels,
        "revision": revision(),
    }


def number(kind, least):
    def parse(text):
        value = kind(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected at least {least}, got {value}")
        return value

    return parse


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxlab", default=str(ROOT / "build/release/voxlab"), help="our program")
    parser.add_argument("--python", default=sys.executable, help="the Python that has the peers")
    parser.add_argument("--files", type=pathlib.Path, default=ROOT / "build/peers", help="weights, inputs, references")
    for name, choices in (("net", NETWORKS), ("engine", ENGINES), ("mode", MODES), ("precision", PRECISIONS)):
        parser.add_argument(f"--{name}", choices=choices, action="append", help="only this (default: all)")
    parser.add_argument("--add", action="store_true", help="keep the record's entries and measure those it lacks")
    parser.add_argument("--rounds", type=number(int, 1), help=f"turns of each engine (default: {ROUNDS})")
    parser.add_argument("--warmup", type=number(int, 1), default=2)
    parser.add_argument("--threads", type=number(int, 1), default=2)
    parser.add_argument("--memory", type=number(float, 1), help="GiB for all engines (default: 85%% of what is free)")
    parser.add_argument("--limit", type=number(int, 1), default=1800, help="seconds until an engine counts as failed")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results/tables/cpu_speed",
                        help="written with .json and .md added")
    options = parser.parse_args()
    if options.memory is None:
        options.memory = 0.85 * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return options


def measure(options, record, file):
    for net in options.net or NETWORKS:
        files = prepared(options, net)
        one = record["networks"].setdefault(net, {"batch": NETWORKS[net]})
        one["multiply_adds"] = multiply_adds(options, net)
        for mode in options.mode or MODES:
            for precision in options.precision or PRECISIONS:
                done = one.setdefault(mode, {}).setdefault(precision, {})
                wanted = [e for e in options.engine or ENGINES if offers(e, mode, precision) and e not in done]
                waiting = [e for e in wanted if e != "voxlab"]
                first = bool(wanted)
                while waiting or first:
                    first = False
                    try:
                        found = group(options, net, mode, precision, files, waiting)
                    except Failed as reason:
                        sys.exit(f"compare: {net} {mode} {precision}: {reason}")
                    # Of voxlab, which is in every group, the first one's figures stand in the table.
                    done.update({name: entry for name, entry in found.items() if name not in done})
                    write(file, json.dumps(record, indent=1) + "\n")
                plans = one.setdefault("plan", {}).setdefault(mode, {})
                if done and precision not in plans:
                    plans[precision] = plan(options, net, mode, precision)
                    write(file, json.dumps(record, indent=1) + "\n")


def keep_revision(record):
    """Entries of a record that named one revision for all of them get it, for others will be added."""
    for one in record["networks"].values():
        for mode in MODES:
            for entries in one.get(mode, {}).values():
                for entry in entries.values():
                    entry.setdefault("revision", record["revision"])


def main():
    options = arguments()
    file = options.out.with_name(options.out.name + ".json")
    record = {"networks": {}}
    if options.add and file.exists():
        record = json.loads(file.read_text())
        keep_revision(record)
    record |= {"threads": options.threads, "warmup": options.warmup, "revision": revision(), "machine": machine()}
    record["peaks"] = peaks(options)
    measure(options, record, file)
    table = markdown(record)
    write(options.out.with_name(options.out.name + ".md"), table)
    print(table)


if __name__ == "__main__":
    main()
