"""Trains UNETR++, put together of the authors' blocks as a configuration says, on batches that voxlab made; see curve.py.

PyTorch eager, f32. The recipe is read from the configuration: AdamW, a cosine after a linear warm-up, clipping, batch Dice
and cross entropy on three outputs. Writes FOLDER/STEP.pth every so many steps and prints one line of JSON for each: the
step, and the seconds of training up to it. Reading batches and writing weights is outside of the clock.
"""

import argparse
import importlib
import json
import math
import pathlib
import sys
import time
import tomllib
import warnings

warnings.filterwarnings("ignore")

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional

from authors import Base, source, stand_in


def network_of(c):
    """As UNETR_PP of the Synapse variant does, at another size: c is the table [unetr_pp] of the configuration."""
    source("unetr_plus_plus")
    stand_in("unetr_pp.network_architecture.neural_network", SegmentationNetwork=Base)
    parts = importlib.import_module("unetr_pp.network_architecture.synapse.model_components")
    blocks = importlib.import_module("unetr_pp.network_architecture.dynunet_block")
    tokens = [math.prod(side // (patch * 2**stage) for side, patch in zip(c["image"], c["patch"])) for stage in range(4)]
    sizes, size = [8, 4, 2], c["feature_size"]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.unetr_pp_encoder = parts.UnetrPPEncoder(
                input_size=tokens, dims=c["dims"], proj_size=c["encoder_projection"], depths=c["encoder_depths"],
                num_heads=c["heads"], in_channels=c["in_channels"])
            self.unetr_pp_encoder.downsample_layers[0][0] = blocks.get_conv_layer(
                3, c["in_channels"], c["dims"][0], kernel_size=tuple(c["patch"]), stride=tuple(c["patch"]), conv_only=True)
            self.encoder1 = blocks.UnetResBlock(3, c["in_channels"], size, kernel_size=3, stride=1, norm_name="instance")
            for number, width, depth, out in zip((5, 4, 3), sizes, c["decoder_depths"], reversed(tokens[:3])):
                setattr(self, f"decoder{number}", parts.UnetrUpBlock(
                    3, size * width * 2, size * width, kernel_size=3, upsample_kernel_size=2, norm_name="instance",
                    proj_size=c["decoder_projection"], num_heads=c["heads"], out_size=out, depth=depth))
            self.decoder2 = parts.UnetrUpBlock(
                3, size * 2, size, kernel_size=3, upsample_kernel_size=tuple(c["patch"]), norm_name="instance",
                conv_decoder=True)
            for number, width in zip((1, 2, 3), (1, 2, 4)):
                setattr(self, f"out{number}", blocks.UnetOutBlock(3, size * width, c["classes"]))

        def forward(self, x):
            deepest, hidden = self.unetr_pp_encoder(x)
            skip = self.encoder1(x)
            places = [side // (patch * 8) for side, patch in zip(c["image"], c["patch"])]
            deepest = deepest.view(len(x), *places, c["dims"][3]).permute(0, 4, 1, 2, 3).contiguous()
            third = self.decoder4(self.decoder5(deepest, hidden[2]), hidden[1])
            second = self.decoder3(third, hidden[0])
            return [self.out1(self.decoder2(second, skip)), self.out2(second), self.out3(third)]

    network = Net()
    for module in network.modules():
        if "Dropout" in type(module).__name__:
            module.p = c["conv_dropout"] if "3d" in type(module).__name__ else c["attention_dropout"]
    return network


def loss_of(c, logits, labels):
    """Cross entropy less soft Dice over batch and space, background left out; c is the table [train.loss]."""
    axes = (0, *range(2, logits.ndim))
    probability = logits.softmax(1)
    truth = functional.one_hot(labels, logits.shape[1]).movedim(-1, 1).float()
    overlap = (probability * truth).sum(axes)
    total = probability.sum(axes) + truth.sum(axes)
    dice = (2 * overlap + c["numerator_smooth"]) / (total + c["denominator_smooth"])
    return functional.cross_entropy(logits, labels) - dice[1:].mean()


def coarser(labels, shape):
    """The middle of each block of voxels, as voxlab takes it."""
    for axis, (size, out) in enumerate(zip(labels.shape[1:], shape), 1):
        labels = labels.index_select(axis, (2 * torch.arange(out) + 1) * size // (2 * out))
    return labels


def rate_at(c, lr, step, steps):
    if step < c["warmup"]:
        return lr * step / c["warmup"]
    return 0.5 * lr * (1 + math.cos(math.pi * (step - c["warmup"]) / max(1, steps - c["warmup"])))


def check(config):
    """What this recipe is made for; anything else is refused rather than done differently."""
    train = config["train"]
    wanted = {"optimizer.kind": "adamw", "schedule.kind": "cosine", "loss.preset": "nnunet", "loss.batch_dice": True,
              "loss.background": False, "loss.supervision": "halving", "optimizer.amsgrad": False}
    for key, value in wanted.items():
        table, name = key.split(".")
        if train[table][name] != value:
            sys.exit(f"curve_worker: train.{key} is {train[table][name]!r}, this script knows {value!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=pathlib.Path, help="config.toml of a run: every key is there")
    parser.add_argument("batches", type=pathlib.Path, help="folder that voxlab_batches filled")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--every", type=int, required=True, help="steps between weights")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    config = tomllib.loads(options.config.read_text())
    check(config)
    train, steps = config["train"], config["train"]["steps"]
    torch.set_num_threads(options.threads)
    torch.manual_seed(config["seed"])
    network = network_of(config["unetr_pp"]).train()
    made = train["optimizer"]
    optimizer = torch.optim.AdamW(network.parameters(), lr=made["lr"], betas=(made["beta1"], made["beta2"]),
                                  eps=made["eps"], weight_decay=made["weight_decay"])
    seconds, file = 0.0, None
    for step in range(steps):
        if step % 100 == 0:
            file = safe_open(options.batches / f"batches_{step:05}.safetensors", "pt")
        image = file.get_tensor(f"{step}.image").movedim(-1, 1).contiguous()
        labels = file.get_tensor(f"{step}.label").long()
        start = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate_at(train["schedule"], made["lr"], step, steps)
        optimizer.zero_grad(set_to_none=True)
        outputs = network(image)
        weights = [0.5**i for i in range(len(outputs))]
        parts = [w / sum(weights) * loss_of(train["loss"], o, coarser(labels, o.shape[2:])) for w, o in zip(weights, outputs)]
        sum(parts).backward()
        nn.utils.clip_grad_norm_(network.parameters(), made["clip_norm"])
        optimizer.step()
        seconds += time.perf_counter() - start
        if (step + 1) % options.every == 0 or step + 1 == steps:
            part = options.out / "part"
            torch.save(network.state_dict(), part)
            part.replace(options.out / f"{step + 1:05}.pth")
            print(json.dumps({"step": step + 1, "seconds": seconds, "loss": sum(p.item() for p in parts)}), flush=True)


if __name__ == "__main__":
    main()
