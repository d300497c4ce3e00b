"""Memory and time of `voxlab predict` on a large CT: 512 x 512 x 400 int16, 14 classes.

Makes a phantom CT, trains a small UNETR++ of Synapse's patch for two steps (its labels are of no use; what
prediction costs does not depend on them), predicts with it and writes results/tables/volume.json and .md. The peak is
the program's resident memory as the kernel counts it, files and libraries included. Needs numpy.

    python3 bench/volume.py --threads 2
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import struct
import subprocess
import sys
import tempfile
import time

import numpy

from record import ROOT, machine, revision, write

CLASSES = 14
PATCH = (64, 128, 128)  # z, y, x
SPACING = (1.0, 0.75, 0.75)  # of the CT, z, y, x in mm
TARGET = (0.9, 0.8, 0.8)  # of the network: finer along z, coarser in the slices
CONFIG = """
net = "unetr_pp"

[unetr_pp]
image = {patch}
patch = [2, 4, 4]
in_channels = 1
classes = {classes}
feature_size = 8
dims = [16, 32, 64, 128]
heads = 4
encoder_depths = [1, 1, 1, 1]
decoder_depths = [1, 1, 1]
attention_dropout = 0.0
conv_dropout = 0.0

[data]
source = "{data}"
preprocess = {{ spacing = {spacing} }}

[train]
steps = 2
batch = 1

[test]
mirror = false
"""


def write_nifti(file, slices, size, spacing, code):
    """Slices (y, x) one after the other, uncompressed; NIfTI-1 with RAS axes."""
    z, y, x = size
    bits = {2: 8, 4: 16}[code]
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, x, y, z, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, code, bits)
    struct.pack_into("<8f", header, 76, 1, *reversed(spacing), 0, 0, 0, 0)
    struct.pack_into("<2f", header, 108, 352, 1)
    header[123] = 2  # millimetres
    struct.pack_into("<h", header, 254, 1)
    for row in range(3):
        line = [0.0] * 4
        line[row] = spacing[2 - row]
        struct.pack_into("<4f", header, 280 + 16 * row, *line)
    header[344:348] = b"n+1\0"
    with open(file, "wb") as out:
        out.write(header)
        for each in slices:
            out.write(numpy.ascontiguousarray(each).tobytes())


def phantom(size, seed):
    """Slices of a body in air with an ellipsoid a class, and their labels."""
    random = numpy.random.default_rng(seed)
    centres = random.uniform(0.3, 0.7, (CLASSES - 1, 3))
    radii = random.uniform(0.06, 0.16, (CLASSES - 1, 3))
    y, x = numpy.meshgrid(*(numpy.linspace(0, 1, n) for n in size[1:]), indexing="ij")
    body = ((y - 0.5) / 0.42) ** 2 + ((x - 0.5) / 0.46) ** 2 < 1
    for z in numpy.linspace(0, 1, size[0]):
        label = numpy.zeros(size[1:], numpy.uint8)
        for k, (c, r) in enumerate(zip(centres, radii)):
            label[((z - c[0]) / r[0]) ** 2 + ((y - c[1]) / r[1]) ** 2 + ((x - c[2]) / r[2]) ** 2 < 1] = k + 1
        image = numpy.where(body, 20 + 12 * label.astype(numpy.int16), -1000)
        yield (image + random.integers(-15, 16, size[1:])).astype("<i2"), label


def make_dataset(root):
    for folder in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (root / folder).mkdir(parents=True)
    for i, use in enumerate(("Tr", "Tr", "Ts")):
        images, labels = zip(*phantom((60, 120, 120), i))
        write_nifti(root / f"images{use}/c{i}_0000.nii", images, (60, 120, 120), SPACING, 4)
        write_nifti(root / f"labels{use}/c{i}.nii", labels, (60, 120, 120), SPACING, 2)
    names = {"background": 0} | {f"organ {k}": k for k in range(1, CLASSES)}
    (root / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "CT"}, "labels": names, "numTraining": 2, "file_ending": ".nii"})
    )


def run(command):
    """Output, seconds and peak resident bytes of one program."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"volume: {' '.join(command)} failed")
    return output, time.monotonic() - begin, usage.ru_maxrss * 1024


def measure(options, folder):
    record = {
        "date": datetime.date.today().isoformat(),
        "revision": revision(),
        "machine": machine(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "threads": options.threads,
        "size_zyx": options.size,
        "spacing_zyx": SPACING,
        "target_zyx": TARGET,
        "patch": PATCH,
        "classes": CLASSES,
        "overlap": options.overlap,
        "mirroring": False,
    }
    make_dataset(folder / "data")
    config = folder / "volume.toml"
    config.write_text(
        CONFIG.format(patch=list(PATCH), classes=CLASSES, data=folder / "data", spacing=list(TARGET))
    )
    common = ["--quiet", "--threads", str(options.threads), "--json"]
    trained, _, _ = run([options.voxlab, "train", str(config), "--runs", str(folder / "runs"), *common])
    model = json.loads(trained)["run"]
    ct = folder / "ct.nii"
    write_nifti(ct, (image for image, _ in phantom(options.size, 9)), options.size, SPACING, 4)
    output, seconds, peak = run(
        [options.voxlab, "predict", model, str(ct), "-o", str(folder / "out")]
        + ["--overlap", str(options.overlap), *common]
    )
    record["seconds"] = {"all": round(seconds, 1)} | {
        k: round(v, 1) for k, v in json.loads(output)[0]["seconds"].items()
    }
    record["peak_resident_bytes"] = peak
    return record


def markdown(r):
    size, s, m = " x ".join(map(str, reversed(r["size_zyx"]))), r["seconds"], r["machine"]
    return (
        "# `voxlab predict` on a large CT\n\n"
        f"Int16 phantom of {size} voxels, spacing {r['spacing_zyx']} mm (z, y, x), resampled to {r['target_zyx']} and "
        f"back; {r['classes']} classes; a small UNETR++ on patches {r['patch']}, overlap {r['overlap']}, no mirroring; "
        f"f32, {r['threads']} thread(s). {m['cpu']}, {m['cores']} cores, load {m['load_before']:.2f} before the run; revision "
        f"{r['revision']}; Python {r['python']}, numpy {r['numpy']}. Measured by bench/volume.py, one run.\n\n"
        "| peak resident memory, GiB | all, s | read and preprocess, s | windows and restored classes, s | write, s |\n"
        "|---|---|---|---|---|\n"
        f"| {r['peak_resident_bytes'] / 2**30:.2f} | {s['all']} | {s['prepare']} | {s['predict']} | {s['write']} |\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxlab", default=str(ROOT / "build/release/voxlab"), help="our program")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=3, default=[400, 512, 512], help="z y x")
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument(
        "--out", type=pathlib.Path, default=ROOT / "results/tables/volume", help="written with .json and .md added"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = measure(options, pathlib.Path(folder))
    write(options.out.with_name(options.out.name + ".json"), json.dumps(record, indent=2) + "\n")
    table = markdown(record)
    write(options.out.with_name(options.out.name + ".md"), table)
    print(table)


if __name__ == "__main__":
    main()
