"""Times one of the authors' networks in PyTorch eager, f32: one repetition per "go" on stdin.

Every answer is one JSON line; see README.md.
"""

import argparse
import contextlib
import json
import sys
import time
import warnings

warnings.filterwarnings("ignore")

import torch
from torch import nn
from torch.nn import functional

from authors import NETWORKS


def outputs_of(network, image):
    outputs = network(image)
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def dice_and_cross_entropy(logits, labels):
    """nnU-Net's training loss: cross entropy plus soft Dice over the foreground, by sample."""
    axes = tuple(range(2, logits.ndim))
    probability = logits.softmax(1)
    truth = functional.one_hot(labels, logits.shape[1]).movedim(-1, 1).float()
    overlap = (probability * truth).sum(axes)
    total = probability.sum(axes) + truth.sum(axes)
    dice = (2 * overlap + 1e-5) / (total + 1e-5 + 1e-8)
    return functional.cross_entropy(logits, labels) - dice[:, 1:].mean()


def inference(network, image, classes):
    network.eval()
    for switch in ("do_ds", "_deep_supervision"):  # the full-size head only, as the authors evaluate
        if hasattr(network, switch):
            setattr(network, switch, False)

    def step():
        with torch.inference_mode():
            network(image)

    return step


def training(network, image, classes):
    """Forward, loss on every output, backward, clipping, SGD: a step without data."""
    network.train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=1e-6, momentum=0.99, nesterov=True, weight_decay=3e-5
    )
    labels = torch.randint(0, classes, (1, *image.shape[2:]))
    with torch.no_grad():
        shapes = [output.shape[2:] for output in outputs_of(network, image)]
    targets = [
        functional.interpolate(labels[:, None].float(), size=shape)[:, 0].long() for shape in shapes
    ]
    weights = [0.5**i for i in range(len(targets))]
    weights = [w / sum(weights) for w in weights]

    def step():
        optimizer.zero_grad(set_to_none=True)
        scales = zip(weights, outputs_of(network, image), targets, strict=True)
        sum(w * dice_and_cross_entropy(o, t) for w, o, t in scales).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", choices=NETWORKS, required=True)
    parser.add_argument("--mode", choices=["infer", "train"], required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true", help="PyTorch's other memory order")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with contextlib.redirect_stdout(sys.stderr):  # some constructors print
        network, shape, classes = NETWORKS[options.net]()
    image = torch.randn(1, *shape)
    implementation = f"PyTorch {torch.__version__} eager"
    if options.channels_last:
        order = torch.channels_last_3d if len(shape) == 4 else torch.channels_last
        network = network.to(memory_format=order)
        image = image.to(memory_format=order)
        implementation += ", channels last"
    with contextlib.redirect_stdout(sys.stderr):
        step = {"infer": inference, "train": training}[options.mode](network, image, classes)

    for line in sys.stdin:
        if line.strip() != "go":
            sys.exit(f"torch_worker: expected go, got {line.strip()!r}")
        start = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            step()
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "implementation": implementation}), flush=True)


if __name__ == "__main__":
    main()
