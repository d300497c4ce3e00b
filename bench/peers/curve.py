"""Dice against training time: one recipe in voxlab and in PyTorch eager, on the same batches, both from scratch.

    VOXLAB_OFFICIAL=FOLDER python3 bench/peers/curve.py experiments/suites/hippocampus.toml --data FOLDER

Both train one after the other, each alone, with the same seed (their starting weights differ: each framework draws its
own). Weights are kept every --every steps, and all of them, PyTorch's through `voxlab import`, are scored by the same
`voxlab predict` and `voxlab evaluate` on the test cases, after training. Writes results/tables/curve.json and .md and
results/figures/curve.svg. The clock counts training steps: for voxlab making and waiting for batches too, for PyTorch
without, as its batches lie ready in files.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from record import ROOT, machine, output_of, revision, write

PEER, OURS = "#b5481d", ("#1f5fa8", "#2b8a57", "#7a4fa3")


def settings(options, seed):
    """What both sides' data and recipe are made from, over the configuration's file."""
    given = [f"seed={seed}", f"train.checkpoint_every={options.every}", "train.minutes=0", *options.set]
    return given + [f"data.source={options.data}"] if options.data else given


def train_ours(options, folder, seed):
    """The run's folder, and [(step, seconds, weights)]: each checkpoint is linked as it appears."""
    line = [options.voxlab, "train", options.config, "--json", "--quiet", "--threads", options.threads, "--runs", folder]
    words = [word for setting in settings(options, seed) for word in ("--set", setting)]
    process = subprocess.Popen([*map(str, line), *words], stdout=subprocess.PIPE, text=True)
    kept, seen = {}, None
    while True:
        ended = process.poll() is not None
        for found in folder.glob("*/last.safetensors"):
            if found.stat().st_ino == seen:
                continue
            copy = folder / "copy"
            copy.unlink(missing_ok=True)
            os.link(found, copy)  # the file of this moment, whatever takes its name later
            seen = copy.stat().st_ino
            step = json.loads(metadata_of(copy)["voxlab_state"])["step"]
            kept[step] = copy.replace(folder / f"ours_{step:05}.safetensors")
        if ended:
            break
        time.sleep(0.05)
    output = process.stdout.read()
    if process.returncode:
        sys.exit(f"curve: training failed with status {process.returncode}")
    home = pathlib.Path(json.loads(output[output.index("{"):])["run"])
    log = [json.loads(text) for text in (home / "steps.jsonl").read_text().splitlines()]
    seconds = {each["step"] + 1: each["seconds"] for each in log}
    return home, [{"step": step, "seconds": seconds[step], "weights": kept[step]} for step in sorted(kept)]


def train_theirs(options, folder, config, seed):
    batches = folder / "batches"
    batches.mkdir()
    output_of([options.batches, options.config, batches, *settings(options, seed)], "curve: batches")
    line = [sys.executable, HERE / "curve_worker.py", config, batches, folder, "--every", options.every, "--threads", options.threads]
    done = subprocess.run([str(word) for word in line], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"curve: PyTorch's training failed with status {done.returncode}")
    shutil.rmtree(batches)
    points = [json.loads(text) for text in done.stdout.splitlines()]
    return [{"step": p["step"], "seconds": p["seconds"], "weights": folder / f"{p['step']:05}.pth"} for p in points]


def metadata_of(path):
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return file.metadata()


def dice_of(options, home, folder, weights):
    """Mean Dice over classes, then over test cases, of the run with these weights in the place of its own."""
    from safetensors.numpy import load_file, save_file

    place = folder / "model"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name in ("config.toml", "model.json"):
        shutil.copy(home / name, place / name)
    if weights.suffix == ".pth":
        imported = folder / "imported.safetensors"
        line = [options.voxlab, "import", "--net", "unetr_pp", "--config", home / "config.toml", weights, imported]
        output_of(line, "curve: import")
        save_file(load_file(imported), place / "last.safetensors", metadata=metadata_of(home / "last.safetensors"))
    else:
        shutil.copy(weights, place / "last.safetensors")
    data = pathlib.Path(tomllib.loads((home / "config.toml").read_text())["data"]["source"])
    dataset = json.loads((data / "dataset.json").read_text())
    cases = dataset["test"]
    out = folder / "labels"
    shutil.rmtree(out, ignore_errors=True)
    images = [data / case["image"] for case in cases]
    output_of([options.voxlab, "predict", place, *images, "-o", out, "--threads", options.threads], "curve: predict")
    truth = folder / "truth"
    if not truth.exists():
        truth.mkdir()
        for case in cases:
            (truth / pathlib.Path(case["label"]).name).symlink_to((data / case["label"]).resolve())
    scores = folder / "scores.json"
    labels = ",".join(label for label in dataset["labels"] if label != "0")
    line = [options.voxlab, "evaluate", out, truth, "-o", scores, "--labels", labels, "--threads", options.threads]
    output_of(line, "curve: evaluate")
    found = json.loads(scores.read_text())[0]["cases"]  # of the first and only rule
    kept = [[r["dice"] for r in c["regions"].values() if r["dice"] is not None] for c in found]
    return statistics.mean(statistics.mean(dice) for dice in kept if dice)


def figure(record):
    width, height, left, right, top, bottom = 640, 420, 64, 24, 24, 60
    series = {name: [(p["seconds"] / 60, p["dice"]) for p in points] for name, points in record["points"].items()}
    high_x = max(x for points in series.values() for x, _ in points) * 1.05
    low_y, high_y = 0.5, 0.95

    def at(x, y):
        y = max(low_y, y)
        return (left + (width - left - right) * x / high_x,
                height - bottom - (height - top - bottom) * (y - low_y) / (high_y - low_y))

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
           f'font-size="13" fill="#222">', f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    for tenth in range(5, 10):
        _, y = at(0, tenth / 10)
        out.append(f'<path d="M{left} {y:.1f}H{width - right}" stroke="#e2e2e2"/>')
        out.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tenth / 10:.1f}</text>')
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 60) if high_x / s <= 8)
    for i in range(int(high_x / step) + 1):
        x, _ = at(i * step, low_y)
        out.append(f'<path d="M{x:.1f} {top}V{height - bottom}" stroke="#e2e2e2"/>')
        out.append(f'<text x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle">{i * step:g}</text>')
    out.append(f'<path d="M{left} {top}V{height - bottom}H{width - right}" fill="none" stroke="#222"/>')
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 16}" text-anchor="middle">training time (minutes)</text>')
    middle = (top + height - bottom) / 2
    out.append(f'<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">mean Dice of the test cases</text>')
    for place, (name, points) in enumerate(series.items()):
        colour = PEER if name.startswith("PyTorch") else OURS[place % len(OURS)]
        line = " ".join("{:.1f},{:.1f}".format(*at(*p)) for p in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += ['<circle cx="{:.1f}" cy="{:.1f}" r="3.5" fill="{}"/>'.format(*at(*p), colour) for p in points]
        out.append(f'<text x="{width - right - 8}" y="{height - bottom - 16 - 20 * place}" text-anchor="end" fill="{colour}">{name}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def markdown(record, name):
    text = f"""# Dice against training time

{record['config']}{', ' + ', '.join(record['set']) if record['set'] else ''}, seed {record['seed']}; {record['machine']['cpu']}, {record['threads']} threads; revision {record['revision']}. Both programs train
on the same batches, from their own starting weights, one after the other; weights are kept every {record['every']} steps and scored
by the same program: {record['cases']} test cases, rule strict-mm, mean over classes, then over cases. Seconds are those of the
training steps; for voxlab they hold making and waiting for batches, for PyTorch they do not. Measured by
`bench/peers/curve.py`; picture: [{name}.svg](../figures/{name}.svg).

| step | {' | '.join(f'{label}, s | Dice' for label in record['points'])} |
|---|{'---|---|' * len(record['points'])}
"""
    steps = sorted({p["step"] for points in record["points"].values() for p in points})
    for step in steps:
        cells = []
        for points in record["points"].values():
            found = next((p for p in points if p["step"] == step), None)
            cells += [f"{found['seconds']:.0f}", f"{found['dice']:.4f}"] if found else ["", ""]
        text += f"| {step} | {' | '.join(cells)} |\n"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="a configuration of `voxlab train`: UNETR++, AdamW, cosine")
    parser.add_argument("--data", help="the dataset's folder, over data.source")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over what the file says")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=100, help="steps between weights that are scored")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("strict", "bf16x3", "bf16"), action="append", help="ours (default: auto)")
    parser.add_argument("--voxlab", default=str(ROOT / "build/release/voxlab"), help="our program")
    parser.add_argument("--batches", default=str(ROOT / "build/release/bench/voxlab_batches"), help="writes our batches")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results", help="folder with tables/ and figures/")
    parser.add_argument("--name", default="curve", help="of the files there")
    options = parser.parse_args()
    record = {"config": pathlib.Path(options.config).name, "set": list(options.set), "seed": options.seed,
              "every": options.every, "threads": options.threads, "machine": machine(), "revision": revision(),
              "cases": 0, "points": {}}
    given = options.set
    with tempfile.TemporaryDirectory(prefix="voxlab-curve-") as name:
        root = pathlib.Path(name)
        jobs = []
        for precision in options.precision or ["auto"]:
            folder = root / precision
            folder.mkdir()
            options.set = [*given, f"train.precision={precision}"]
            home, points = train_ours(options, folder, options.seed)
            used = tomllib.loads((home / "config.toml").read_text())["train"]["precision"]
            jobs.append((f"voxlab, {used}", home, points))
            print(f"voxlab {precision}: {points[-1]['seconds']:.0f} s", file=sys.stderr)
        options.set = given
        folder = root / "pytorch"
        folder.mkdir()
        points = train_theirs(options, folder, home / "config.toml", options.seed)
        jobs.append(("PyTorch eager, f32", home, points))
        print(f"PyTorch: {points[-1]['seconds']:.0f} s", file=sys.stderr)
        for label, home, points in jobs:
            for point in points:
                point["dice"] = dice_of(options, home, root, point.pop("weights"))
                print(f"{label}, step {point['step']}: {point['dice']:.4f}", file=sys.stderr)
            record["points"][label] = points
        record["cases"] = len(list((root / "truth").iterdir()))
    write(options.out / f"tables/{options.name}.json", json.dumps(record, indent=1) + "\n")
    write(options.out / f"tables/{options.name}.md", markdown(record, options.name))
    write(options.out / f"figures/{options.name}.svg", figure(record))
    print(markdown(record, options.name))


if __name__ == "__main__":
    main()
