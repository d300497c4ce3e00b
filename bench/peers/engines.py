"""The engines of the comparison: how each is started, and what it can do."""

import pathlib

HERE = pathlib.Path(__file__).resolve().parent
MODES = {"infer": "inference", "train": "training step", "volume": "whole volume"}
PRECISIONS = ("f32", "bf16")
NETWORKS = {  # and samples of a training step
    "unetr_pp/synapse": 1,
    "unetr_pp/tumor": 1,
    "ux_net/flare": 1,
    "brats_unet/bl": 1,
    "levit_unet/384": 2,
    "dae_former/synapse": 1,
}
OURS = {"f32": [], "bf16": ["--precision", "bf16"]}  # options of `voxlab time`
TORCH = {
    "eager": [],
    "eager-channels-last": ["--channels-last"],
    "compile": ["--compile"],
}
ENGINES = ("voxlab", *TORCH, "openvino", "onnxruntime")


def offers(engine, mode, precision):
    """Whether the engine has this at all: two of them do not train, and one has no bf16 on a CPU."""
    if engine == "openvino":
        return mode != "train"
    if engine == "onnxruntime":
        return mode != "train" and precision == "f32"
    return True


def is_eager(engine):
    return engine.startswith("eager")


def command(options, engine, net, mode, precision, files, logits):
    """The worker's command line; `logits` is where it leaves its result, None in training."""
    threads = ["--threads", str(options.threads)]
    if engine == "voxlab":
        name, variant = net.split("/")
        line = [options.voxlab, "time", name, "--variant", variant, "--stdin", *threads, *OURS[precision]]
        line += ["--weights", str(files / "weights.safetensors")]
        if mode == "train":
            return [*line, "--training", "--batch", str(NETWORKS[net])]
        image = "volume" if mode == "volume" else "image"
        line += ["--volume"] if mode == "volume" else []
        return [*line, "--image", str(files / f"{image}.safetensors"), "--logits", str(logits)]
    script = "torch_worker.py" if engine in TORCH else f"{engine}_worker.py"
    line = [options.python, str(HERE / script), "--net", net, "--mode", mode, "--precision", precision, *threads]
    line += ["--files", str(files), *TORCH.get(engine, [])]
    return [*line, "--batch", str(NETWORKS[net])] if mode == "train" else [*line, "--logits", str(logits)]
