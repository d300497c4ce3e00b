"""What every peer's worker shares: files of the comparison, windows of a volume, the lines of the protocol."""

import argparse
import contextlib
import json
import pathlib
import sys
import time

MODES = ("infer", "train", "volume")


def parser(description):
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--net", required=True, help="NETWORK/VARIANT of authors.py")
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1, help="samples of a training step")
    parser.add_argument("--files", type=pathlib.Path, required=True, help="the folder that prepare.py filled")
    parser.add_argument("--logits", type=pathlib.Path, help="written before the first answer (inference)")
    return parser


def load_image(options):
    from safetensors.torch import load_file

    name = "volume" if options.mode == "volume" else "image"
    return load_file(options.files / f"{name}.safetensors")["image"]


def over_windows(predict, image, window):
    """MONAI's sliding window as `voxlab time --volume` has it: half a window apart, Gaussian weights."""
    from monai.inferers import sliding_window_inference

    return sliding_window_inference(image, window, 1, predict, overlap=0.5, mode="gaussian")


def save_logits(path, logits):
    """A torch tensor or a NumPy array as f32 in a safetensors file."""
    from safetensors.numpy import save_file

    array = logits if not hasattr(logits, "detach") else logits.detach().float().contiguous().numpy()
    save_file({"logits": array}, path)


def array_inference(options, window, predict, keep=lambda result: result):
    """One repetition with an engine on NumPy arrays; `keep` makes a window's result outlast the next one."""
    import torch

    torch.set_num_threads(options.threads)
    image = load_image(options)

    def on_window(x):
        return torch.from_numpy(keep(predict(x.contiguous().numpy())))

    def step():
        return over_windows(on_window, image, window) if options.mode == "volume" else predict(image.numpy())

    if options.logits:
        save_logits(options.logits, step())
    return step


def serve(prepare):
    """One line of JSON for each "go". prepare() -> (one repetition, what it was done with); a failure is an answer."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # constructors print
            step, implementation = prepare()
        for line in sys.stdin:
            if line.strip() != "go":
                sys.exit(f"worker: expected go, got {line.strip()!r}")
            start = time.perf_counter()
            with contextlib.redirect_stdout(sys.stderr):
                step()
            seconds = time.perf_counter() - start
            print(json.dumps({"seconds": seconds, "implementation": implementation()}), flush=True)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        print(json.dumps({"failed": f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]}), flush=True)
        raise
