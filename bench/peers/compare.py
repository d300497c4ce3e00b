"""The five networks at paper size, f32: voxlab and PyTorch eager in turn, in one run.

Both sides are processes that stay alive and do one repetition for each "go", so both are warm, and
whatever else the machine does meets both. Only one of them works at a time. See README.md.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODES = {"infer": "inference", "train": "training step"}
# Ours for each of the authors' networks in authors.py, and the input of both.
NETWORKS = {
    "unetr_pp": ("synapse", "1x1x64x128x128"),
    "ux_net": ("flare", "1x1x96x96x96"),
    "levit_unet": ("384", "1x1x224x224"),
    "brats_unet": ("bl", "1x4x128x128x128"),
    "dae_former": ("synapse", "1x3x224x224"),
}


def commands(options, net, mode):
    voxlab = [options.voxlab, "time", net, "--variant", NETWORKS[net][0], "--stdin", "--threads", str(options.threads),
              "--precision", "strict"]
    if mode == "train":
        voxlab.append("--training")
    torch = [options.python, str(HERE / "torch_worker.py")]
    if options.channels_last:
        torch.append("--channels-last")
    torch += ["--net", net, "--mode", mode, "--threads", str(options.threads)]
    return {"voxlab": voxlab, "pytorch": torch}


class Worker:
    def __init__(self, name, command, threads):
        self.name = name
        # OPENBLAS_* may hold a debugging choice of kernels; neither side is to be timed under one.
        env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
        env["OMP_NUM_THREADS"] = str(threads)
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
            )
        except OSError as error:
            sys.exit(f"compare: cannot start {name}: {error}")

    def go(self):
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self.process.wait()
            sys.exit(f"compare: {self.name} ended with status {status} instead of an answer")
        return json.loads(line)

    def status_bytes(self, key):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
        raise KeyError(key)

    def peak_anonymous(self):
        """Peak memory that holds data, mapped files left out, sampled in one untimed repetition."""
        peak, done = 0, threading.Event()

        def sample():
            nonlocal peak
            while not done.is_set():
                peak = max(peak, self.status_bytes("RssAnon"))
                time.sleep(0.002)

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            self.go()
        finally:
            done.set()
            sampler.join()
        return peak

    def stop(self):
        self.process.kill()
        self.process.wait()


def summary(seconds):
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {
        "median": median,
        "quartiles": [low, high],
        "min": min(seconds),
        "max": max(seconds),
        "n": len(seconds),
    }


def compare(options, net, mode):
    workers = {}
    try:
        for name, command in commands(options, net, mode).items():
            workers[name] = Worker(name, command, options.threads)
        for worker in workers.values():
            for _ in range(options.warmup):
                worker.go()
        seconds = {name: [] for name in workers}
        implementation = {}
        for round_number in range(options.rounds):
            for name, worker in workers.items():
                # The other side's waiting threads stop spinning and leave the cores.
                time.sleep(0.1)
                answer = worker.go()
                seconds[name].append(answer["seconds"])
                implementation[name] = answer.get("implementation", name)
            print(
                f"{net} {MODES[mode]} {round_number + 1}/{options.rounds}: "
                + ", ".join(f"{name} {times[-1]:.3f} s" for name, times in seconds.items()),
                file=sys.stderr,
            )
        result = {}
        for name, worker in workers.items():
            resident = worker.status_bytes("VmHWM")  # read before sampling disturbs anything
            result[name] = {
                "implementation": implementation[name],
                "seconds": summary(seconds[name]),
                "repetitions": seconds[name],
                "peak_resident_bytes": resident,
                "peak_anonymous_bytes": worker.peak_anonymous(),
            }
        paired = [a / b for a, b in zip(*seconds.values(), strict=True)]
        medians = {name: side["seconds"]["median"] for name, side in result.items()}
        result["ratio"] = {
            "of_medians": medians["voxlab"] / medians["pytorch"],
            "paired": summary(paired),
        }
        return result
    finally:
        for worker in workers.values():
            worker.stop()


def machine():
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in open("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {"cpu": model, "cores": os.cpu_count(), "load_before": os.getloadavg()[0]}


def revision():
    git = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
    )
    return git.stdout.strip() or "unknown"


def markdown(record):
    def seconds(s):
        return f"{s['median']:.3f} ({s['quartiles'][0]:.3f} to {s['quartiles'][1]:.3f})"

    first = next(iter(record["networks"].values()))["modes"]
    peer = next(iter(first.values()))["pytorch"]["implementation"]
    rows = [
        f"| network | | n | voxlab, s | {peer}, s | time ratio | voxlab, GiB | PyTorch, GiB | memory ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for net, one in record["networks"].items():
        for mode, r in one["modes"].items():
            ours, theirs = r["voxlab"], r["pytorch"]
            memory = [side["peak_anonymous_bytes"] for side in (ours, theirs)]
            rows.append(
                f"| {net} {one['variant']}, {one['input']} | {MODES[mode]} | {ours['seconds']['n']} "
                f"| {seconds(ours['seconds'])} | {seconds(theirs['seconds'])} | {r['ratio']['of_medians']:.3f} "
                f"| {memory[0] / 2**30:.2f} | {memory[1] / 2**30:.2f} | {memory[0] / memory[1]:.2f} |"
            )
    m = record["machine"]
    return (
        f"# The five networks against PyTorch eager\n\n"
        f"Batch 1, {record['precision']}, {record['threads']} threads; {m['cpu']}, {m['cores']} cores, load "
        f"{m['load_before']:.1f} before the run; revision {record['revision']}. Measured by bench/peers/compare.py.\n\n"
        f"Medians (first to third quartile) of repetitions that alternate in one run, after "
        f"{record['warmup']} unclocked on each side. Weights and input stand in memory; inference gives the "
        f"full-size output alone; a training step is forward, Dice and cross entropy on every output, backward, "
        f"clipping, SGD. Memory is the peak without mapped files.\n\n" + "\n".join(rows) + "\n"
    )


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def at_least(least):
    def parse(text):
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected at least {least}, got {value}")
        return value

    return parse


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxlab", default=str(ROOT / "build/release/voxlab"), help="our program")
    parser.add_argument("--python", default=sys.executable, help="the Python that has PyTorch")
    parser.add_argument("--net", choices=NETWORKS, action="append", help="only this (default: all)")
    parser.add_argument("--mode", choices=MODES, action="append", help="only this (default: both)")
    parser.add_argument("--add", action="store_true", help="keep what the record holds already")
    parser.add_argument("--rounds", type=at_least(2), default=11)
    parser.add_argument("--warmup", type=at_least(1), default=2)
    parser.add_argument("--threads", type=at_least(1), default=2)
    parser.add_argument(
        "--channels-last", action="store_true", help="PyTorch in channels-last memory order"
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=ROOT / "results/tables/pytorch_eager",
        help="written with .json and .md added",
    )
    options = parser.parse_args()

    record = {
        "precision": "f32 (voxlab: strict)",
        "threads": options.threads,
        "warmup": options.warmup,
        "revision": revision(),
        "machine": machine(),
        "networks": {},
    }
    file = options.out.with_name(options.out.name + ".json")
    if options.add:
        record["networks"] = json.loads(file.read_text())["networks"]
    for net in options.net or NETWORKS:
        variant, shape = NETWORKS[net]
        one = record["networks"].setdefault(net, {"variant": variant, "input": shape, "modes": {}})
        for mode in options.mode or MODES:
            one["modes"][mode] = compare(options, net, mode)
            write(file, json.dumps(record, indent=2) + "\n")
    table = markdown(record)
    write(options.out.with_name(options.out.name + ".md"), table)
    print(table)


if __name__ == "__main__":
    main()
