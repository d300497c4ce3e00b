"""Times one of the authors' networks in PyTorch, eager or compiled: one repetition per "go"; see README.md."""

import contextlib
import warnings

warnings.filterwarnings("ignore")

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from authors import NETWORKS, full_size_only
from worker import load_image, over_windows, parser, save_logits, serve


def outputs_of(outputs):
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


def autocast(options):
    return torch.autocast("cpu", torch.bfloat16) if options.precision == "bf16" else contextlib.nullcontext()


def inference(options, network, forward, image):
    full_size_only(network.eval())
    window = load_file(options.files / "image.safetensors")["image"].shape[2:]

    def step():
        with torch.inference_mode(), autocast(options):
            if options.mode == "volume":
                return over_windows(lambda x: outputs_of(forward(x))[0].float(), image, window)
            return outputs_of(forward(image))[0]

    if options.logits:
        save_logits(options.logits, step())
    return step


def training(options, network, forward, image, classes):
    """Forward, loss on every output, backward, clipping, SGD: a step without data."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.99, nesterov=True, weight_decay=3e-5)
    labels = torch.randint(0, classes, (image.shape[0], *image.shape[2:]))
    with torch.no_grad():
        shapes = [output.shape[2:] for output in outputs_of(network(image))]
    targets = [functional.interpolate(labels[:, None].float(), size=shape)[:, 0].long() for shape in shapes]
    weights = [0.5**i for i in range(len(targets))]
    weights = [w / sum(weights) for w in weights]

    def step():
        optimizer.zero_grad(set_to_none=True)
        with autocast(options):
            outputs = outputs_of(forward(image))
            scales = zip(weights, outputs, targets, strict=True)
            loss = sum(w * dice_and_cross_entropy(o.float(), t) for w, o, t in scales)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()

    return step


def prepare(options):
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    network, shape, classes = NETWORKS[options.net]()
    network.load_state_dict(torch.load(options.files / "weights.pth", weights_only=True))
    if options.mode == "train":
        image = torch.randn(options.batch, *shape)
    else:
        image = load_image(options)
    if options.channels_last:
        order = torch.channels_last_3d if len(shape) == 4 else torch.channels_last
        network = network.to(memory_format=order)
        image = image.to(memory_format=order)
    forward = torch.compile(network) if options.compile else network
    if options.mode == "train":
        step = training(options, network, forward, image, classes)
    else:
        step = inference(options, network, forward, image)

    def implementation():
        text = f"PyTorch {torch.__version__} {'compiled by inductor' if options.compile else 'eager'}"
        if options.compile:
            breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
            text += f", {breaks} graph breaks" if breaks else ""
        text += ", channels last" if options.channels_last else ""
        return text + (", autocast bf16" if options.precision == "bf16" else ", f32")

    return step, implementation


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--channels-last", action="store_true", help="PyTorch's other memory order")
    arguments.add_argument("--compile", action="store_true", help="torch.compile with inductor")
    options = arguments.parse_args()
    serve(lambda: prepare(options))
