"""f32 convolutions of machines without AMX beside oneDNN: our kernels and PyTorch's, both held to one instruction set.

    python3 bench/peers/onednn.py

Takes turns, shape by shape, between `voxlab_bench` (Google Benchmark) and PyTorch, whose f32 convolutions are oneDNN's, in the
faster of its two memory orders, and writes results/tables/onednn.json and .md. Needs PyTorch and the program of a build.
"""

import argparse
import json
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from record import ROOT, machine, revision, write

LEVELS = {"avx512": "AVX512_CORE", "avx2": "AVX2"}  # VOXLAB_ISA: ONEDNN_MAX_CPU_ISA
PASSES = ("forward", "dgrad", "wgrad")
LIMIT = 1.15  # of oneDNN's time, at most
SHAPES = (
    "k3_16-16_64x128x128", "k3_48-48_96x96x96", "k3_64-64_64x64x64", "k3_128-128_32x32x32", "k3_320-320_8x8x8",
    "k3_4-32_128x128x128", "k3s2_32-64_128x128x128", "k7s2_1-48_96x96x96", "k2s2_32-64_128x128x128", "dw7_48_48x48x48",
    "dw7_192_12x12x12", "dw3_128_56x56", "k3s2_48-96_112x112", "k3_1024-1024_28x28", "k3_512-512_56x56",
)  # of bench/dense_bench.cpp


def geometry(shape):
    """{kernel, stride, channels, out, groups, size} of a name of bench/dense_bench.cpp."""
    found = re.fullmatch(r"(k|dw)(\d+)(?:s(\d+))?_(?:(\d+)-)?(\d+)_(\d+(?:x\d+)+)", shape)
    depthwise, out = found[1] == "dw", int(found[5])
    return {"kernel": int(found[2]), "stride": int(found[3] or 1), "channels": out if depthwise else int(found[4]), "out": out,
            "groups": out if depthwise else 1, "size": [int(n) for n in found[6].split("x")]}


def passes(shape):
    return [p for p in PASSES if p != "dgrad" or geometry(shape)["channels"] > 4]  # an image has no gradient


def worker(options):
    """Reads `shape pass`, answers with the milliseconds of the faster memory order."""
    import time

    import torch

    torch.set_num_threads(options.threads)
    print(json.dumps({"version": torch.__version__}), flush=True)
    for line in sys.stdin:
        shape, which = line.split()
        g = geometry(shape)
        rank = len(g["size"])
        least = math.inf
        for order in (torch.contiguous_format, torch.channels_last_3d if rank == 3 else torch.channels_last):
            x = torch.randn(1, g["channels"], *g["size"]).to(memory_format=order)
            w = torch.randn(g["out"], g["channels"] // g["groups"], *[g["kernel"]] * rank).to(memory_format=order)
            padding = [g["kernel"] // 2 if g["kernel"] % 2 else 0] * rank
            settings = ([g["stride"]] * rank, padding, [1] * rank, False, [0] * rank, g["groups"])
            with torch.inference_mode():
                y = torch.ops.aten.convolution(x, w, None, *settings)
                mask = [which == "dgrad", which == "wgrad", False]
                runs = []
                for _ in range(options.repeats + 2):
                    start = time.perf_counter()
                    if which == "forward":
                        torch.ops.aten.convolution(x, w, None, *settings)
                    else:
                        torch.ops.aten.convolution_backward(y, x, w, None, *settings, mask)
                    runs.append(time.perf_counter() - start)
            least = min(least, 1e3 * statistics.median(runs[2:]))
        print(json.dumps({"ms": least}), flush=True)


class Peer:
    def __init__(self, options, level):
        line = [sys.executable, __file__, "--worker", "--threads", options.threads, "--repeats", options.repeats]
        env = os.environ | {"ONEDNN_MAX_CPU_ISA": level, "OMP_NUM_THREADS": str(options.threads)}
        self.process = subprocess.Popen([str(word) for word in line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.version = self.answer()["version"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"onednn: PyTorch's process ended with status {self.process.wait()}")
        return json.loads(line)

    def milliseconds(self, shape, which):
        self.process.stdin.write(f"{shape} {which}\n")
        self.process.stdin.flush()
        return self.answer()["ms"]


def ours(options, level, shape, which):
    line = [options.bench, f"--benchmark_filter=^{which}/{shape}/f32/", "--benchmark_format=json", "--benchmark_min_time=0.2",
            "--benchmark_min_warmup_time=0.2"]  # a new process finds its memory cold
    env = os.environ | {"VOXLAB_ISA": level, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(line, capture_output=True, text=True, env=env)
    found = json.loads(done.stdout)["benchmarks"] if done.returncode == 0 and done.stdout else []
    if len(found) != 1:
        sys.exit(f"onednn: {which}/{shape}: {(done.stderr or 'no such case').strip()}")
    return found[0]["real_time"], found[0].get("label", "")


def markdown(record):
    m = record["machine"]
    text = f"""# f32 convolutions without AMX, beside oneDNN

{record["threads"]} threads; {m["cpu"]}, both sides held to the instruction set named; revision {record["revision"]}; PyTorch {record["version"]}
(its f32 convolutions are oneDNN's), the faster of its memory orders. Milliseconds, medians of n turns. `ratio` is oneDNN's over
voxlab's: above 1, voxlab is faster; target: {1 / LIMIT:.2f} at least. Measured by `bench/peers/onednn.py`.

| set | pass | shape | n | voxlab | kernel | oneDNN | ratio | |
|---|---|---|---|---|---|---|---|---|
"""
    ratios = {}
    for case in record["cases"]:
        a, b = (statistics.median(case[side]) for side in ("voxlab", "onednn"))
        ratios.setdefault(case["level"], []).append(b / a)
        verdict = "met" if a <= LIMIT * b else "not met"
        text += f"| {case['level']} | {case['pass']} | {case['shape']} | {len(case['voxlab'])} "
        text += f"| {a:.2f} | {case['kernel']} | {b:.2f} | {b / a:.2f} | {verdict} |\n"
    text += "\n"
    for level, found in ratios.items():
        text += f"- {level}: geometric mean of the ratios {statistics.geometric_mean(found):.2f}, least {min(found):.2f}\n"
    return text


def same(file, what, kept, now):
    """Turns of other conditions are not added up."""
    if kept != now:
        sys.exit(f"onednn: {file}: its {what} is {kept}, this one's {now}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", default=str(ROOT / "build/release/bench/voxlab_bench"), help="our program")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="only this (default: all)")
    parser.add_argument("--level", choices=LEVELS, action="append", help="only this instruction set (default: all; each must be the machine's)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="turns")
    parser.add_argument("--repeats", type=int, default=3, help="of PyTorch in a turn")
    parser.add_argument("--add", action="store_true", help="add turns to those of the record, of the same revision")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results/tables/onednn", help="written with .json and .md added")
    options = parser.parse_args()
    if options.worker:
        return worker(options)
    file = options.out.with_name(options.out.name + ".json")
    record = {"machine": machine(), "revision": revision(), "threads": options.threads, "cases": []}
    if options.add and file.exists():
        kept = json.loads(file.read_text())
        for key in ("revision", "threads"):
            same(file, key, kept[key], record[key])
        record |= {"cases": kept["cases"], "version": kept["version"]}
    cases = {(c["level"], c["pass"], c["shape"]): c for c in record["cases"]}
    for level in options.level or LEVELS:
        peer = Peer(options, LEVELS[level])
        same(file, "version of PyTorch", record.setdefault("version", peer.version), peer.version)
        for shape in options.shape or SHAPES:
            for which in passes(shape):
                key = (level, which, shape)
                if key not in cases:
                    cases[key] = {"level": level, "pass": which, "shape": shape, "voxlab": [], "onednn": []}
                    record["cases"].append(cases[key])
                case = cases[key]
                for _ in range(options.rounds):
                    milliseconds, case["kernel"] = ours(options, level, shape, which)
                    case["voxlab"].append(milliseconds)
                    case["onednn"].append(peer.milliseconds(shape, which))
                write(file, json.dumps(record, indent=1) + "\n")
                print(f"{level} {which} {shape}: {case['voxlab'][-1]:.2f}, oneDNN {case['onednn'][-1]:.2f} ms", file=sys.stderr)
        peer.process.stdin.close()
        peer.process.wait()
    text = markdown(record)
    write(options.out.with_name(options.out.name + ".md"), text)
    print(text)


if __name__ == "__main__":
    main()
