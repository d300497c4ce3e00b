"""Time of inference against the size of the input, and one thread against two.

    python3 bench/scaling.py

Writes results/tables/scaling.json and .md and results/figures/scaling.svg. A network is measured at the sizes that
its configuration takes, up to the --memory given (as `voxlab count` says).
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from record import ROOT, machine, revision, write

CUBES = (32, 64, 96, 128, 160, 192)
SIZES = {"unetr_pp": CUBES, "ux_net": CUBES}  # both take multiples of 32 only
PAPER = {  # at their own size: one thread against two
    "unetr_pp": "synapse", "ux_net": "flare", "brats_unet": "bl", "levit_unet": "384", "dae_former": "synapse",
}
TIMES_FASTER, START_UP = 1.85, 0.5  # targets: two threads over one at least, seconds at most
COLOURS = ("#1f5fa8", "#b5481d")


def voxlab(options, *words):
    line = [options.voxlab, *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise RuntimeError(said[-1] if said else f"status {done.returncode}")
    return json.loads(done.stdout)


def words_of(net, size):
    words = [net, "--variant", PAPER[net], "--json"]
    return words + ["--set", f"{net}.image=[{size},{size},{size}]"] if size else words


def timed(options, net, cells):
    """Cells (size or None, threads), a repetition of each in turn -> seconds and GiB that inference needs, or why not.

    Every repetition is a process of its own with one run, the first, before that of the clock.
    """
    found = []
    for size, _ in cells:
        memory = voxlab(options, "count", *words_of(net, size))["inference"]["peak_bytes"] / 2**30
        found.append({"seconds": [], "first": [], "gib": memory})
        if memory > options.memory:
            found[-1] = {"failed": f"needs {memory:.1f} GiB"}
    for _ in range(options.rounds):
        for (size, threads), cell in zip(cells, found, strict=True):
            if "failed" in cell:
                continue
            try:
                line = ["time", *words_of(net, size), "--threads", threads, "--warmup", 1, "--repeats", 1]
                answer = voxlab(options, *line)
                cell["seconds"].append(answer["seconds"])
                cell["first"].append(answer["first_seconds"])
                cell["median"] = statistics.median(cell["seconds"])
            except RuntimeError as reason:
                cell.clear()
                cell["failed"] = str(reason)
    for (size, threads), cell in zip(cells, found, strict=True):
        outcome = cell.get("median", cell.get("failed"))
        print(f"{net} {size or PAPER[net]}, {threads} threads: {outcome}", file=sys.stderr)
    return found


def slope(points):
    """Least-squares exponent of seconds against voxels."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x, mean_y = (statistics.mean(axis) for axis in zip(*logs))
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs)


def points_of(record, net):
    return [(int(s) ** 3, f["median"]) for s, f in record["sizes"].get(net, {}).items() if "median" in f]


def figure(record):
    """Log-log, voxels against seconds, as plain SVG."""
    series = {net: p for net in SIZES if (p := points_of(record, net))}
    width, height, left, right, top, bottom = 640, 420, 76, 120, 24, 60
    every = [point for points in series.values() for point in points]
    low_x, high_x = CUBES[0] ** 3 * 0.8, CUBES[-1] ** 3 * 1.25
    low_y = 10 ** math.floor(math.log10(min(y for _, y in every)))
    high_y = 10 ** math.ceil(math.log10(max(y for _, y in every)))

    def at_x(x):
        return left + (width - left - right) * math.log(x / low_x) / math.log(high_x / low_x)

    def at_y(y):
        return height - bottom - (height - top - bottom) * math.log(y / low_y) / math.log(high_y / low_y)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="13" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for side in CUBES:
        x = at_x(side**3)
        out.append(f'<path d="M{x:.1f} {top}V{height - bottom}" stroke="#e2e2e2"/>')
        out.append(f'<text x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle">{side}³</text>')
    tick = low_y
    while tick <= high_y * 1.001:
        y = at_y(tick)
        out.append(f'<path d="M{left} {y:.1f}H{width - right}" stroke="#e2e2e2"/>')
        out.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        tick *= 10
    out.append(f'<path d="M{left} {top}V{height - bottom}H{width - right}" fill="none" stroke="#222"/>')
    middle = (top + height - bottom) / 2
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 16}" text-anchor="middle">input (voxels)</text>')
    out.append(f'<text transform="translate(20 {middle}) rotate(-90)" text-anchor="middle">inference (s)</text>')
    for (net, points), colour in zip(series.items(), COLOURS, strict=False):
        line = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
        x, y = points[-1]
        out.append(f'<text x="{at_x(x) + 10:.1f}" y="{at_y(y) + 4:.1f}" fill="{colour}">{net}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def markdown(record, name):
    text = f"""# Time against size and threads

{record["machine"]["cpu"]}, {record["machine"]["cores"]} cores; revision {record["revision"]}; inference of one image, median of
{record["rounds"]} runs (least to most). Measured by `bench/scaling.py`; picture: [{name}.svg](../figures/{name}.svg).

## Size, {record['threads']} threads

| network | input | seconds | microseconds a voxel | tensors, GiB |
|---|---|---|---|---|
"""
    for net, sizes in record["sizes"].items():
        for size, f in sizes.items():
            if "failed" in f:
                text += f"| {net} | {size}³ | not measured: {f['failed']} | | |\n"
                continue
            s = f["seconds"]
            text += f"| {net} | {size}³ | {f['median']:.4f} ({min(s):.4f} to {max(s):.4f}) "
            text += f"| {f['median'] / int(size) ** 3 * 1e6:.3f} | {f['gib']:.2f} |\n"
    text += "\n"
    for net in record["sizes"]:
        if len(points := points_of(record, net)) > 1:
            text += f"- {net}: seconds grow as voxels to the power {slope(points):.2f}\n"
    return text


def threads_table(record):
    text = "\n## Threads, at the paper's size\n\n"
    text += "`first` is the first run of a process on two threads, once the network and its weights are there: it traces and\n"
    text += "plans. `start-up` is what it takes longer than the run after it.\n"
    text += f"Targets: {TIMES_FASTER} times faster at least, {START_UP} s of start-up at most.\n\n"
    text += "| network | 1 thread, s | 2 threads, s | times faster | | first, s | start-up, s | |\n" + "|---" * 8 + "|\n"
    for net, by_threads in record["one_and_two"].items():
        if any("failed" in f for f in by_threads.values()):
            reason = next(f["failed"] for f in by_threads.values() if "failed" in f)
            text += f"| {net} {PAPER[net]} | not measured: {reason} | | | | | | |\n"
            continue
        one, two = (by_threads[n]["median"] for n in ("1", "2"))
        first = statistics.median(by_threads["2"]["first"])
        faster, started = ("met" if met else "not met" for met in (one / two >= TIMES_FASTER, first - two <= START_UP))
        text += f"| {net} {PAPER[net]} | {one:.3f} | {two:.3f} | {one / two:.2f} | {faster} "
        text += f"| {first:.3f} | {first - two:.3f} | {started} |\n"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxlab", default=str(ROOT / "build/release/voxlab"), help="our program")
    parser.add_argument("--net", choices=PAPER, action="append", help="only this (default: all)")
    parser.add_argument("--largest", type=int, default=CUBES[-1], help="largest side of a cube")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions")
    parser.add_argument("--threads", type=int, default=2, help="of the measurements against size")
    parser.add_argument("--memory", type=float, default=14, help="GiB that inference may need")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results", help="folder with tables/ and figures/")
    parser.add_argument("--name", default="scaling", help="of the files there")
    options = parser.parse_args()
    nets = options.net or list(PAPER)
    record = {
        "machine": machine(),
        "revision": revision(),
        "rounds": options.rounds,
        "threads": options.threads,
        "sizes": {},
        "one_and_two": {},
    }
    for net in nets:
        pair = timed(options, net, [(None, 1), (None, 2)])
        record["one_and_two"][net] = dict(zip(("1", "2"), pair, strict=True))
        sizes = [size for size in SIZES.get(net, ()) if size <= options.largest]
        if sizes:
            cells = timed(options, net, [(size, options.threads) for size in sizes])
            record["sizes"][net] = {str(size): cell for size, cell in zip(sizes, cells, strict=True)}
        write(options.out / f"tables/{options.name}.json", json.dumps(record, indent=1) + "\n")
    text = markdown(record, options.name) + threads_table(record)
    write(options.out / f"tables/{options.name}.md", text)
    if any(points_of(record, net) for net in SIZES):
        write(options.out / f"figures/{options.name}.svg", figure(record))
    print(text)


if __name__ == "__main__":
    main()
