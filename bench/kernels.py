"""Where the time of every network goes: layers, kernels, and what share of the machine's limit each reaches.

    python3 bench/kernels.py

Runs `voxlab profile` on the networks at paper size, inference and a training step, and writes
results/tables/kernels.json and .md. A kernel of the reference backend with more than 1 % of a network's time makes the
exit code 1: no op may be silently slow.
"""

import argparse
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from record import ROOT, machine, revision, write

NETWORKS = ("unetr_pp/synapse", "unetr_pp/tumor", "ux_net/flare", "brats_unet/bl", "levit_unet/384",
            "dae_former/synapse")
MODES = {"inference": [], "training step": ["--train"]}
FALLBACK = "ref."  # how the reference backend's kernels are named
ALLOWED = 0.01  # share of a network's time on them


def profile(options, net, mode, precision):
    name, variant = net.split("/")
    line = [options.voxlab, "profile", name, "--variant", variant, *MODES[mode], "--json", "--depth", options.depth]
    line += ["--precision", precision, "--repeats", options.repeats, "--threads", options.threads]
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"kernels: {net} {mode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def by_kernel(found):
    """Kernels of all layers added up, the most expensive first."""
    kernels = {}
    for layer in found["layers"]:
        for each in layer["kernels"]:
            key = ("bwd" if each["backward"] else "fwd", each["op"], each["kernel"])
            total = kernels.setdefault(key, dict.fromkeys(("seconds", "calls", "macs", "bytes", "bound_seconds"), 0))
            for figure in total:
                total[figure] += each[figure]
    return sorted(kernels.items(), key=lambda item: -item[1]["seconds"])


def fallback_share(found):
    slow = sum(work["seconds"] for (_, _, kernel), work in by_kernel(found) if kernel.startswith(FALLBACK))
    return slow / found["end_to_end_seconds"]


def figures(work, whole):
    seconds = work["seconds"]
    return (
        f"{seconds * 1e3:.1f} | {100 * seconds / whole:.1f} | {2e-9 * work['macs'] / seconds:.0f} "
        f"| {1e-9 * work['bytes'] / seconds:.1f} | {100 * work['bound_seconds'] / seconds:.0f}"
    )


def section(title, found, layers, kernels):
    whole = found["end_to_end_seconds"]
    rest = 100 * found["unattributed_seconds"] / whole
    reached = 100 * sum(layer["bound_seconds"] for layer in found["layers"]) / whole
    lines = [
        f"\n## {title}\n",
        f"{whole * 1e3:.1f} ms end to end, quietest of {found['runs']} runs; unattributed {rest:.1f} %; the calls' bounds add "
        f"up to {reached:.0f} % of it; on reference kernels {100 * fallback_share(found):.2f} %.\n",
        "| layer | ms | % | Gflop/s | GB/s | of the bound, % |",
        "|---|---|---|---|---|---|",
    ]
    for layer in found["layers"][:layers]:
        lines.append(f"| {layer['layer'] or '(outside of layers)'} | {figures(layer, whole)} |")
    lines += ["", "| kernel | | calls | ms | % | Gflop/s | GB/s | of the bound, % |", "|---|---|---|---|---|---|---|---|"]
    for (direction, op, kernel), work in by_kernel(found)[:kernels]:
        lines.append(f"| {op}: {kernel} | {direction} | {work['calls']} | {figures(work, whole)} |")
    return lines


def markdown(record):
    first = next(iter(record["profiles"].values()))
    peaks = first["peaks"]
    lines = [
        "# Layers and kernels\n",
        f"{record['machine']['cpu']}, {record['threads']} threads, load {record['machine']['load_before']:.1f} before the "
        f"run; revision {record['revision']}. Peaks measured by the same program: {peaks['f32_gflops']:.0f} Gflop/s f32, "
        f"{peaks['bf16_gflops']:.0f} bf16, copies {peaks['copy_gbytes_per_s']:.1f} GB/s. Measured by `bench/kernels.py`; one "
        "network by hand: `voxlab profile NET [--train]`.\n",
        "Gflop/s and GB/s count what the op asks for: two for each multiply-add of the direct sum, tensors read and "
        "written once. A call's bound is the larger of its arithmetic at the measured peak (kernels named winograd "
        "make 4 of 9 multiply-adds, winograd3 8 of 27) and its bytes at the speed of copies; what stays in the caches can be faster.",
    ]
    for title, found in record["profiles"].items():
        lines += section(title, found, record["layers_shown"], record["kernels_shown"])
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxlab", default=str(ROOT / "build/release/voxlab"), help="our program")
    parser.add_argument("--net", choices=NETWORKS, action="append", help="only this (default: all)")
    parser.add_argument("--precision", default="auto", help="as `voxlab profile` takes it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--depth", type=int, default=1, help="names of a layer's path")
    parser.add_argument("--layers", type=int, default=5, help="rows of layers shown")
    parser.add_argument("--kernels", type=int, default=8, help="rows of kernels shown")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results/tables/kernels",
                        help="written with .json and .md added")
    parser.add_argument("--add", action="store_true", help="keep what the record has of other networks")
    options = parser.parse_args()
    file = options.out.with_name(options.out.name + ".json")
    kept = json.loads(file.read_text())["profiles"] if options.add and file.exists() else {}
    record = {"machine": machine(), "revision": revision(), "threads": options.threads, "profiles": kept,
              "layers_shown": options.layers, "kernels_shown": options.kernels}
    slow = []
    for net in options.net or NETWORKS:
        for mode in MODES:
            print(f"{net} {mode}", file=sys.stderr)
            found = profile(options, net, mode, options.precision)
            record["profiles"][found["title"].replace("of one sample", f"of {net}", 1)] = found
            if fallback_share(found) > ALLOWED:
                slow.append(f"{net}, {mode}: {100 * fallback_share(found):.1f} % on reference kernels")
    write(file, json.dumps(record, indent=1) + "\n")
    write(options.out.with_name(options.out.name + ".md"), markdown(record))
    sys.exit("kernels: " + "; ".join(slow) if slow else 0)


if __name__ == "__main__":
    main()
