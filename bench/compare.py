"""Two revisions' kernels side by side: is one faster?

    python3 bench/compare.py main HEAD --filter Conv

Builds the Google Benchmark program of both revisions in a temporary folder with the same flags, runs them in turn and
gives a verdict for each case. The verdict is "same" only when the medians are close and the quartiles say so.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from record import ROOT

SAME = 0.03  # medians closer than this are the same, if the spread is that small


def call(*line, **settings):
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True, **settings)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        sys.exit(f"compare: {line[0]} {line[1]}: {said[-1] if said else f'status {done.returncode}'}")
    return done.stdout


def built(revision, folder, jobs, settings):
    """The benchmark program of a revision, in a work tree of its own."""
    print(f"building {revision}", file=sys.stderr)
    tree = folder / "tree"
    call("git", "-C", ROOT, "worktree", "add", "--detach", tree, revision)
    # The same folder name on both sides: paths in the program cannot move its code.
    call("cmake", "--preset", "release", *(f"-D{s}" for s in settings), cwd=tree)
    call("cmake", "--build", "--preset", "release", "--target", "voxlab_bench", "-j", jobs, cwd=tree)
    program = next((tree / "build/release").rglob("voxlab_bench"), None)
    if program is None:
        sys.exit(f"compare: {revision} builds no voxlab_bench")
    return program


def measured(program, pattern, seconds):
    """One run of the program: nanoseconds of wall clock for each case."""
    text = call(program, f"--benchmark_filter={pattern}", f"--benchmark_min_time={seconds}", "--benchmark_format=json")
    scale = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}
    return {
        b["name"]: b["real_time"] * scale[b["time_unit"]]
        for b in json.loads(text)["benchmarks"]
        if b.get("run_type", "iteration") == "iteration" and not b.get("error_occurred")
    }


def quartiles(values):
    return statistics.quantiles(values, n=4, method="inclusive")


def verdict(a, b):
    """What the times of B say beside those of A: same, faster, slower or unclear, and the ratio of medians B/A."""
    (low_a, mid_a, high_a), (low_b, mid_b, high_b) = quartiles(a), quartiles(b)
    ratio = mid_b / mid_a
    if high_b < low_a and ratio < 1 - SAME:
        return "faster", ratio
    if low_b > high_a and ratio > 1 + SAME:
        return "slower", ratio
    narrow = high_a - low_a < 2 * SAME * mid_a and high_b - low_b < 2 * SAME * mid_b
    if abs(ratio - 1) <= SAME and narrow:
        return "same", ratio
    return "unclear", ratio


def report(times, revisions):
    width = max((len(case) for case in times), default=4)
    lines = [f"{'case':{width}}  {revisions[0]:>12}  {revisions[1]:>12}  ratio  verdict"]
    for case, (a, b) in times.items():
        if len(a) < 2 or len(b) < 2:
            lines.append(f"{case:{width}}  only in {revisions[0] if a else revisions[1]}")
            continue
        word, ratio = verdict(a, b)
        mids = [statistics.median(values) / 1e3 for values in (a, b)]
        lines.append(f"{case:{width}}  {mids[0]:9.1f} us  {mids[1]:9.1f} us  {ratio:5.2f}  {word}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revisions", nargs=2, metavar="REVISION", help="the one to compare with, and the new one")
    parser.add_argument("--filter", default=".", help="regular expression of cases (default: all)")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each program, in turn; at least 2")
    parser.add_argument("--seconds", type=float, default=0.1, help="least time of a case in a run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="of the build")
    parser.add_argument("-D", dest="settings", action="append", default=[], help="a CMake setting for both builds")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds: expected at least 2")
    with tempfile.TemporaryDirectory(prefix="voxlab-compare-") as name:
        folders = [pathlib.Path(name) / side for side in "ab"]
        try:
            programs = []
            for revision, folder in zip(options.revisions, folders, strict=True):
                folder.mkdir()
                programs.append(built(revision, folder, options.jobs, options.settings))
            times = {}
            for number in range(options.rounds):
                print(f"round {number + 1}/{options.rounds}", file=sys.stderr)
                for side, program in enumerate(programs):
                    for case, value in measured(program, options.filter, options.seconds).items():
                        times.setdefault(case, ([], []))[side].append(value)
        finally:
            for folder in folders:
                subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", folder / "tree"],
                               capture_output=True)
    print(report(times, options.revisions))


if __name__ == "__main__":
    main()
