"""The Markdown of a comparison's record: targets first, then every engine."""

import pathlib
import tomllib

from engines import ENGINES, MODES, NETWORKS, PRECISIONS, is_eager

TARGETS = pathlib.Path(__file__).resolve().parent / "targets.toml"
LARGEST = 3  # kernels named of a row
HEAD = """# Speed on the CPU beside other engines

{threads} threads; {cpu}, {cores} cores, load {load:.1f} before the run; revision {revision}.
Measured by `bench/peers/compare.py`, set-up in `bench/peers/README.md`.

Instruction sets of this machine: {has}; it lacks {lacks}.{note}

Weights and input are the same in all engines and stand in memory. Inference gives the full-size output alone, of one
image; a training step is forward, Dice and cross entropy on every output, backward, clipping, SGD; a whole volume is
a sliding window over an image half a window longer along each axis (2-d networks: eight slices), windows half a
window apart, Gaussian weights. Seconds are medians (first to third quartile; least to most) of repetitions that
take turns with voxlab's in one run; a turn is two of them, and the second counts, for the first finds its memory cold after
the others' work. `ratio` is the peer's median over voxlab's in the same run (quartiles of the pairs): above 1, voxlab is
faster. `difference` is the largest deviation of inference's logits from the authors' code in f64, over the largest logit.
Memory is the peak without mapped files. {floor}
"""


def load_targets():
    return tomllib.loads(TARGETS.read_text())


def best(entries, against):
    """The fastest peer relative to voxlab in its own run: (engine, ratio), or None."""
    ratios = {
        name: entry["ratio"]["of_medians"]
        for name, entry in entries.items()
        if "ratio" in entry and (against == "any" or is_eager(name))
    }
    return min(ratios.items(), key=lambda item: item[1]) if ratios else None


def entries_of(record, net, mode, precision):
    return record["networks"].get(net, {}).get(mode, {}).get(precision, {})


def plan_of(record, net, mode, precision):
    """Our plan's calls and their bounds; None where they were not measured."""
    return record["networks"].get(net, {}).get("plan", {}).get(mode, {}).get(precision)


def held_against(record, targets):
    """What is compared: (network, mode, precision, fastest peer and its ratio, target or None, our plan or None)."""
    for mode in MODES:
        for precision in PRECISIONS:
            wanted = targets.get(mode, {}).get(precision, {})
            for net in NETWORKS:
                if peer := best(entries_of(record, net, mode, precision), wanted.get("against", "any")):
                    yield net, mode, precision, peer, wanted.get(net), plan_of(record, net, mode, precision)


def target_rows(record, targets):
    rows = []
    for net, mode, precision, (peer, ratio), target, ours in held_against(record, targets):
        verdict = "- | - | -"
        if target is not None:
            allowed = entries_of(record, net, mode, precision)[peer]["seconds"]["median"] / target
            word = "met" if ratio >= target else "not met"
            word += ", below the bounds" if ours and allowed < ours["bound_seconds"] else ""
            verdict = f"{target:g} | {word} | {allowed:.3f}"
        verdict += " | -" if ours is None else f" | {ours['bound_seconds']:.3f}"
        rows.append(f"| {net} | {MODES[mode]} | {precision} | {peer} | {ratio:.2f} | {verdict} |")
    return rows


def bound_rows(record, targets, largest):
    """Where the time of the rows goes whose target is not met: the largest kernels, and what each reaches of its bound."""
    rows = []
    for net, mode, precision, (_, ratio), target, ours in held_against(record, targets):
        if target is None or ours is None or ratio >= target:
            continue
        whole = ours["end_to_end_seconds"]
        row = f"| {net} | {MODES[mode]} | {precision} | {whole:.3f} | {100 * ours['bound_seconds'] / whole:.0f} |"
        for each in ours["kernels"][:largest]:
            share, reached = each["seconds"] / whole, each["bound_seconds"] / each["seconds"]
            row += f" {each['op']}, {each['kernel']}: {100 * share:.0f} at {100 * reached:.0f} |"
        rows.append(row)
    return rows


def share_rows(record, share):
    """Of each network's inference in f32, the share that the bounds of its calls are."""
    rows = []
    for net in NETWORKS:
        if ours := plan_of(record, net, "infer", "f32"):
            whole, bound = ours["end_to_end_seconds"], ours["bound_seconds"]
            verdict = "met" if bound >= share * whole else "not met"
            rows.append(f"| {net} | {whole:.3f} | {bound:.3f} | {100 * bound / whole:.0f} | {100 * share:g} | {verdict} |")
    return rows


def memory_rows(record, share):
    rows = []
    for precision in PRECISIONS:
        for net in NETWORKS:
            found = entries_of(record, net, "infer", precision)
            if not all("peak_anonymous_bytes" in found.get(name, {}) for name in ("voxlab", "eager")):
                continue
            ours, theirs = (found[name]["peak_anonymous_bytes"] / 2**30 for name in ("voxlab", "eager"))
            verdict = "met" if ours <= share * theirs else "not met"
            rows.append(f"| {net} | {precision} | {ours:.2f} | {theirs:.2f} | {ours / theirs:.2f} | {share:g} | {verdict} |")
    return rows


def floor(record, net, mode, precision, entry):
    """Seconds that the multiply-adds take at the measured peak; None where that is not known."""
    peaks, work = record.get("peaks"), record["networks"][net]["multiply_adds"].get(mode)
    if not peaks or not work:
        return None
    # Three bf16 products make one of f32 in the mode that our program calls bf16x3.
    if "bf16x3" in entry.get("implementation", ""):
        rate = peaks["bf16_gflops"] / 3
    else:
        rate = peaks[f"{precision}_gflops"]
    return 2e-9 * work / rate


def engine_row(record, net, mode, precision, name, entry):
    start = f"| {net} | {precision} | {name} |"
    if "failed" in entry:
        reason = entry["failed"].replace("|", "\\|")
        return f"{start} failed: {reason} | | | | |" + (" |" if record.get("peaks") else "")
    s = entry["seconds"]
    digits = 4 if s["median"] < 1 else 3
    seconds = (
        f"{s['median']:.{digits}f} ({s['quartiles'][0]:.{digits}f} to {s['quartiles'][1]:.{digits}f}; "
        f"{s['min']:.{digits}f} to {s['max']:.{digits}f})"
    )
    ratio = "1"
    if "ratio" in entry:
        low, high = entry["ratio"]["paired"]["quartiles"]
        ratio = f"{entry['ratio']['of_medians']:.2f} ({low:.2f} to {high:.2f})"
    inference = entries_of(record, net, "infer", precision).get(name, {}).get("difference")
    difference = "-" if inference is None else f"{inference:.1e}"
    row = f"{start} {seconds} | {s['n']} | {ratio} | {difference} | {entry['peak_anonymous_bytes'] / 2**30:.2f} |"
    if record.get("peaks"):
        least = floor(record, net, mode, precision, entry)
        row += " - |" if least is None else f" {least:.{digits}f} |"
    return row


def engine_table(record, mode):
    columns = ["network", "precision", "engine", "seconds", "n", "ratio", "difference", "GiB"]
    columns += ["floor, s"] if record.get("peaks") else []
    rows = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for net in NETWORKS:
        for precision in PRECISIONS:
            found = entries_of(record, net, mode, precision)
            rows += [engine_row(record, net, mode, precision, e, found[e]) for e in ENGINES if e in found]
    return rows if len(rows) > 2 else []


def implementations(record):
    """What each engine said of itself, with its version."""
    said = {}
    for net in NETWORKS:
        for mode in MODES:
            for precision in PRECISIONS:
                for name, entry in entries_of(record, net, mode, precision).items():
                    if "implementation" in entry:
                        said.setdefault(name, {})[entry["implementation"]] = None
    return [f"- {name}: {'; '.join(said[name])}" for name in ENGINES if name in said]


def revisions(record):
    """Of the program, and what was measured with each; the one of the record where its entries name none."""
    groups = {}
    for mode in MODES:
        for precision in PRECISIONS:
            for net in NETWORKS:
                for entry in entries_of(record, net, mode, precision).values():
                    groups.setdefault(entry.get("revision", record["revision"]), {})[f"{MODES[mode]} {precision}"] = None
    if len(groups) < 2:
        return next(iter(groups), record["revision"])
    return "; ".join(f"{name}: {', '.join(found)}" for name, found in groups.items())


def markdown(record):
    m, peaks = record["machine"], record.get("peaks")
    amx = "amx_tile" in m["has"]
    measured = "The floor column is left out: this build measures no peaks (`voxlab peaks`)."
    if peaks:
        measured = (
            f"`floor` is the time of the multiply-adds alone at the measured peak of the machine, "
            f"{peaks['f32_gflops']:.0f} Gflop/s in f32, {peaks['bf16_gflops']:.0f} in bf16 (memory copies at "
            f"{peaks['copy_gbytes_per_s']:.1f} GB/s); fewer multiplications than that (minimal filtering) can pass it."
        )
    head = HEAD.format(
        threads=record["threads"], cpu=m["cpu"], cores=m["cores"], load=m["load_before"], revision=revisions(record),
        has=", ".join(m["has"]) or "none of those that matter here", lacks=", ".join(m["lacks"]) or "none",
        note="" if amx else " The targets were set for machines with AMX (`amx_tile`), which this one is not.",
        floor=measured,
    )
    targets = load_targets()
    rows = target_rows(record, targets)
    text = head + "\n## Targets\n\nRatio against the fastest peer of the precision; training against eager. `allowed` is the peer's\n"
    text += "median over the target. `least` adds up the bounds of our plan's calls (`voxlab profile`): of each the larger of its\n"
    text += "multiply-adds at the measured peak and its tensors, read and written once, at the speed of copies; what stays in the\n"
    text += "caches can pass it.\n\n"
    text += "| network | | precision | fastest peer | ratio | target | | allowed, s | least, s |\n" + "|---" * 9 + "|\n"
    text += "\n".join(rows) + "\n"
    if bounds := bound_rows(record, targets, LARGEST):
        text += "\n## What bounds the rows not met\n\nOne run of `voxlab profile` each: seconds end to end, what `least` is of them, and the largest\n"
        text += "kernels, each with its share of the time and what it reaches of its own bound, in per cent. Why: docs/performance.md.\n\n"
        text += "| network | | precision | s | least, % | " + "kernel: % of the time at % of its bound | " * LARGEST
        text += "\n" + "|---" * (5 + LARGEST) + "|\n" + "\n".join(bounds) + "\n"
    if shares := share_rows(record, targets["floor"]["share"]):
        text += "\n## Share of the floor, inference in f32\n\n| network | s | least, s | share, % | target | |\n" + "|---" * 6 + "|\n"
        text += "\n".join(shares) + "\n"
    if memory := memory_rows(record, targets["memory"]["share_of_eager"]):
        text += "\n## Memory of inference\n\n| network | precision | voxlab, GiB | eager, GiB | share | target | |\n" + "|---" * 7 + "|\n"
        text += "\n".join(memory) + "\n"
    for mode, title in MODES.items():
        if table := engine_table(record, mode):
            text += f"\n## {title[0].upper()}{title[1:]}\n\n" + "\n".join(table) + "\n"
    return text + "\n## Versions\n\n" + "\n".join(implementations(record)) + "\n"
