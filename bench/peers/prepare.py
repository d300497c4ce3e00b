"""Weights, inputs and the f64 reference of one network, for every engine alike; see README.md.

Writes into --files: weights.pth (the authors' names), image.safetensors and volume.safetensors ("image", channels
after the batch), reference.safetensors ("logits" of the image in f64, by the authors' network).
"""

import argparse
import pathlib
import warnings

warnings.filterwarnings("ignore")

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from authors import NETWORKS, full_size_only


def drawn_weights(network):
    """The authors' own initialisation; norms and layer scales, which start at 0, 1 or 1e-6, get noise to matter."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))


def by_taps(conv, x):
    """A 3-d convolution as one product a tap: PyTorch's own in f64 lays out every window of the image in memory."""
    k, s, p = conv.kernel_size, conv.stride, conv.padding
    x = functional.pad(x, [n for axis in reversed(p) for n in (axis, axis)])
    size = [(x.shape[2 + i] - k[i]) // s[i] + 1 for i in range(3)]
    w = conv.weight
    y = torch.zeros(x.shape[0], w.shape[0], *size, dtype=x.dtype)
    for tap in torch.cartesian_prod(*(torch.arange(n) for n in k)).tolist():
        part = x[(..., *(slice(a, a + (n - 1) * step + 1, step) for a, n, step in zip(tap, size, s)))]
        one = w[(..., *tap)]
        if conv.groups == 1:
            y += torch.einsum("oi,nizyx->nozyx", one, part)
        else:
            y += part * one.view(1, -1, 1, 1, 1)
    return y if conv.bias is None else y + conv.bias.view(1, -1, 1, 1, 1)


def in_f64(network, image):
    full_size_only(network.double().eval())
    for module in network.modules():
        if isinstance(module, nn.Conv3d) and max(module.kernel_size) > 1 and max(module.dilation) == 1:
            if module.groups == 1 or module.groups == module.in_channels == module.out_channels:
                module.forward = by_taps.__get__(module)
    with torch.inference_mode():
        logits = network(image.double())
    return logits[0] if isinstance(logits, (list, tuple)) else logits


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", choices=NETWORKS, required=True)
    parser.add_argument("--files", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    network, shape, _ = NETWORKS[options.net]()
    drawn_weights(network)
    options.files.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), options.files / "weights.pth")
    image = torch.randn(1, *shape)
    save_file({"image": image}, options.files / "image.safetensors")
    # What `voxlab time --volume` draws: half a window longer each way, or eight slices.
    volume = (8, *shape) if len(shape) == 3 else (1, shape[0], *(n * 3 // 2 for n in shape[1:]))
    save_file({"image": torch.randn(volume)}, options.files / "volume.safetensors")
    save_file({"logits": in_f64(network, image).contiguous()}, options.files / "reference.safetensors")


if __name__ == "__main__":
    main()
