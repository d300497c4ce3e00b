"""What the records of all measurements say of the machine and the revision, and how they are written."""

import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile")


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in info) if value}
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name", platform.machine()),
        "cores": os.cpu_count(),
        "has": [flag for flag in FLAGS if flag in flags],
        "lacks": [flag for flag in FLAGS if flag not in flags],
        "load_before": os.getloadavg()[0],
        "system": platform.release(),
    }


def output_of(line, where):
    """What a program prints; its last words end this one when it fails."""
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        sys.exit(f"{where}: {said[-1] if said else f'status {done.returncode}'}")
    return done.stdout


def revision():
    git = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
    )
    return git.stdout.strip() or "unknown"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)
