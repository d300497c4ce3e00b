"""Runs voxlab's ONNX files in ONNX Runtime and compares with what voxlab computed.

usage: onnxruntime_test.py TEST_EXPORT VOXLAB CONFIG
TEST_EXPORT writes the cases (tests/export/cases_test.cpp); VOXLAB exports the network of CONFIG from the command line.
"""
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy
import onnxruntime

LIMIT = 2e-5  # of the largest value: f32 sums in another order

DTYPES = {"F32": numpy.float32, "I32": numpy.int32, "I64": numpy.int64}


def read_safetensors(path):
    raw = path.read_bytes()
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        tensors[name] = numpy.frombuffer(raw[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def error(path):
    """The largest deviation over the largest value, or a text when the file does not run."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        tensors = read_safetensors(path.with_suffix(".safetensors"))
        expected = tensors[session.get_outputs()[0].name].astype(numpy.float64)
        inputs = {port.name: tensors[port.name] for port in session.get_inputs()}
        got = session.run(None, inputs)[0]
    except Exception as reason:  # whatever the runtime raises is a finding
        return str(reason).replace("\n", " ")
    if got.shape != expected.shape:
        return f"shape {got.shape}, expected {expected.shape}"
    if expected.size == 0:
        return 0.0
    worst = numpy.abs(got - expected).max() / max(numpy.abs(expected).max(), 1e-30)
    return float(worst) if numpy.isfinite(worst) else "not a finite number"


def main(test_export, voxlab, config):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        subprocess.run([test_export, "--gtest_also_run_disabled_tests", "--gtest_filter=ExportCases.*"], check=True,
                       stdout=subprocess.DEVNULL, env=dict(os.environ, VOXLAB_EXPORT_CASES=name))
        subprocess.run([voxlab, "export", "--config", config, "--onnx", folder / "command.onnx", "--check",
                        folder / "command.safetensors"], check=True, stdout=subprocess.DEVNULL)
        cases = sorted(folder.glob("*.onnx"))
        failed = 0
        for case in cases:
            result = error(case)
            good = isinstance(result, float) and result <= LIMIT
            failed += not good
            if not good or case.stem.startswith(("net", "command")):
                print("ok  " if good else "FAIL", case.stem, result)
        print(f"{len(cases)} files, {failed} failed, ONNX Runtime {onnxruntime.__version__}")
        return 1 if failed or not cases else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
