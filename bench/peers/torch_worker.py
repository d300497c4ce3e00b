"""Times the authors' UNETR++ (synapse) in PyTorch eager, f32: one repetition per "go" on stdin.

Every answer is one JSON line. The authors' sources are read from the folder that VOXLAB_OFFICIAL
names; see README.md.
"""

import argparse
import json
import os
import sys
import time
import types
import warnings

warnings.filterwarnings("ignore")

import torch
from torch import nn
from torch.nn import functional

CLASSES = 14
PATCH = (64, 128, 128)


def authors_network():
    official = os.environ.get("VOXLAB_OFFICIAL")
    if not official:
        sys.exit("torch_worker: VOXLAB_OFFICIAL must name the folder that holds unetr_plus_plus")
    sys.path.insert(0, os.path.join(official, "unetr_plus_plus"))
    # The authors' base class adds sliding-window inference and with it nnU-Net's dependencies. The
    # network itself needs nothing of it beyond nn.Module.
    base = types.ModuleType("unetr_pp.network_architecture.neural_network")
    base.SegmentationNetwork = type("SegmentationNetwork", (nn.Module,), {})
    sys.modules[base.__name__] = base
    from unetr_pp.network_architecture.synapse.unetr_pp_synapse import UNETR_PP

    return UNETR_PP(
        in_channels=1,
        out_channels=CLASSES,
        img_size=list(PATCH),
        feature_size=16,
        num_heads=4,
        depths=[3, 3, 3, 3],
        dims=[32, 64, 128, 256],
        do_ds=True,
    )


def dice_and_cross_entropy(logits, labels):
    """nnU-Net's training loss: cross entropy plus soft Dice over the foreground, by sample."""
    axes = tuple(range(2, logits.ndim))
    probability = logits.softmax(1)
    truth = functional.one_hot(labels, CLASSES).movedim(-1, 1).float()
    overlap = (probability * truth).sum(axes)
    total = probability.sum(axes) + truth.sum(axes)
    dice = (2 * overlap + 1e-5) / (total + 1e-5 + 1e-8)
    return functional.cross_entropy(logits, labels) - dice[:, 1:].mean()


def inference(network, image):
    network.eval()
    network.do_ds = False  # as in the authors' evaluation: the full-size head only

    def step():
        with torch.inference_mode():
            network(image)

    return step


def training(network, image):
    """Forward, loss on three scales, backward, clipping, SGD: the authors' step without data."""
    network.train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.99, nesterov=True, weight_decay=3e-5
    )
    labels = torch.randint(0, CLASSES, (1, *PATCH))
    targets = [labels, labels[:, ::2, ::4, ::4].contiguous(), labels[:, ::4, ::8, ::8].contiguous()]
    weights = [4 / 7, 2 / 7, 1 / 7]

    def step():
        optimizer.zero_grad(set_to_none=True)
        outputs = network(image)
        scales = zip(weights, outputs, targets, strict=True)
        sum(w * dice_and_cross_entropy(o, t) for w, o, t in scales).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=["infer", "train"], required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true", help="PyTorch's other memory order")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    network, image = authors_network(), torch.randn(1, 1, *PATCH)
    implementation = f"PyTorch {torch.__version__} eager"
    if options.channels_last:
        network = network.to(memory_format=torch.channels_last_3d)
        image = image.to(memory_format=torch.channels_last_3d)
        implementation += ", channels last"
    step = {"infer": inference, "train": training}[options.mode](network, image)

    for line in sys.stdin:
        if line.strip() != "go":
            sys.exit(f"torch_worker: expected go, got {line.strip()!r}")
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "implementation": implementation}), flush=True)


if __name__ == "__main__":
    main()
