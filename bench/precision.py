"""Does reduced precision cost accuracy? One recipe, several seeds, trained in each precision; paired by test case.

    python3 bench/precision.py experiments/suites/hippocampus.toml --data FOLDER

Trains the configuration with every seed in every precision (runs that are finished are not repeated) and writes
results/tables/precision.json and .md: the Dice of each run, and the mean difference from strict over the test cases with
its 95 % interval. A precision that this machine refuses stands in the table with the reason; with VOXLAB_ISA=amx-emulated
bf16x3 trains on any machine with AVX-512, to the bits of tiles, which is for its Dice, not for its seconds.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from record import ROOT, machine, write

PRECISIONS = ("strict", "bf16x3", "bf16")
MARGIN = 0.005


def train(options, precision, seed):
    """The run's folder, or why there is none."""
    line = [options.voxlab, "train", options.config, "--json", "--quiet", "--threads", options.threads]
    line += ["--runs", options.runs]
    for setting in (f"seed={seed}", f"train.precision={precision}", *options.set):
        line += ["--set", setting]
    if options.data:
        line += ["--set", f"data.source={options.data}"]
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return None, said[-1] if said else f"status {done.returncode}"
    return pathlib.Path(json.loads(done.stdout[done.stdout.index("{"):])["run"]), None


def dice_of(folder):
    """Mean Dice over the classes for each test case: {case: Dice}."""
    report = json.loads((folder / "metrics.json").read_text())
    found = {c["case"]: [r["dice"] for r in c["regions"].values() if r["dice"] is not None] for c in report["cases"]}
    return {case: statistics.mean(dice) for case, dice in found.items() if dice}


def quantile_of_t(freedom):
    """The 97.5 % quantile of Student's distribution (Cornish-Fisher expansion; to 1e-4 from 10 degrees of freedom on)."""
    z = statistics.NormalDist().inv_cdf(0.975)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def paired(reference, other):
    """Difference of two precisions' Dice: {seed: {case: Dice}} each. A case's seeds are averaged first, so that the
    interval is over cases: seeds of one case are no independent cases."""
    seeds = sorted(set(reference) & set(other))
    cases = sorted(set.intersection(*(set(runs[seed]) for runs in (reference, other) for seed in seeds)))
    differences = [statistics.mean(other[seed][case] - reference[seed][case] for seed in seeds) for case in cases]
    half = quantile_of_t(len(cases) - 1) * statistics.stdev(differences) / math.sqrt(len(cases))
    mean = statistics.mean(differences)
    return {"mean": mean, "interval": [mean - half, mean + half], "cases": len(cases), "seeds": len(seeds)}


def markdown(record):
    lines = [
        "# Dice by training precision\n",
        f"{record['config']}{', ' + ', '.join(record['set']) if record['set'] else ''}; {record['machine']['cpu']}, "
        f"{record['threads']} thread(s); revision {', '.join(sorted(set(record['revisions'])))} of the program. Dice: rule {record['rule']}, mean over classes, then "
        "over test cases. Inference after bf16 training is strict. Measured by `bench/precision.py`.\n",
        "| precision | instructions | Dice of each seed | mean | s a training step |",
        "|---|---|---|---|---|",
    ]
    for precision, found in record["precisions"].items():
        if "failed" in found:
            lines.append(f"| {precision} | | not measured: {found['failed']} | | |")
            continue
        dice = [statistics.mean(cases.values()) for cases in found["dice"].values()]
        lines.append(f"| {precision} | {', '.join(sorted(set(found['isa'])))} | {', '.join(f'{d:.4f}' for d in dice)} "
                     f"| {statistics.mean(dice):.4f} | {statistics.median(found['step_seconds']):.3f} |")
    lines += ["", "| | mean difference from strict | 95 % interval | cases | seeds | within ±0.005 |", "|---|---|---|---|---|---|"]
    for precision, d in record["differences"].items():
        low, high = d["interval"]
        inside = "yes" if -MARGIN <= low and high <= MARGIN else "no"
        lines.append(f"| {precision} | {d['mean']:+.4f} | {low:+.4f} to {high:+.4f} | {d['cases']} | {d['seeds']} | {inside} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="a configuration of `voxlab train`")
    parser.add_argument("--data", help="the dataset's folder, over data.source")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over what the file says")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="only this (default: all)")
    parser.add_argument("--voxlab", default=str(ROOT / "build/release/voxlab"), help="our program")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "results/runs")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results/tables/precision",
                        help="written with .json and .md added")
    options = parser.parse_args()
    record = {"config": pathlib.Path(options.config).name, "set": options.set, "machine": machine(),
              "revisions": [], "threads": options.threads, "rule": "", "precisions": {}, "differences": {}}
    for seed in range(options.seeds):  # seeds outside: an interrupted comparison is paired as far as it got
        for precision in options.precision or PRECISIONS:
            found = record["precisions"].setdefault(precision, {"dice": {}, "step_seconds": [], "isa": []})
            if "failed" in found:
                continue
            print(f"{precision}, seed {seed}", file=sys.stderr)
            folder, reason = train(options, precision, seed)
            if reason:
                record["precisions"][precision] = {"failed": reason}
                continue
            found["dice"][seed] = dice_of(folder)
            found["step_seconds"].append(json.loads((folder / "result.json").read_text())["train_step"]["value"])
            run = json.loads((folder / "record.json").read_text())
            found["isa"].append(run["machine"]["isa"])
            record["revisions"].append(run["revision"])
            record["rule"] = json.loads((folder / "metrics.json").read_text())["rule"]["name"]
    good = {name: found["dice"] for name, found in record["precisions"].items() if "dice" in found}
    if "strict" in good:
        record["differences"] = {name: paired(good["strict"], dice) for name, dice in good.items() if name != "strict"}
    write(options.out.with_name(options.out.name + ".json"), json.dumps(record, indent=1) + "\n")
    write(options.out.with_name(options.out.name + ".md"), markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
