"""Times voxlab's ONNX file of a network in ONNX Runtime, f32; see README.md."""

import onnxruntime
import torch
from safetensors.torch import load_file

from worker import over_windows, parser, save_logits, serve


def prepare(options):
    torch.set_num_threads(options.threads)
    image = load_file(options.files / f"{'volume' if options.mode == 'volume' else 'image'}.safetensors")["image"]
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(options.files / "net.onnx"), settings, providers=["CPUExecutionProvider"]
    )

    def predict(x):
        return session.run(None, {"image": x.numpy()})[0]

    if options.mode == "volume":
        window = session.get_inputs()[0].shape[2:]

        def step():
            return over_windows(lambda x: torch.from_numpy(predict(x.contiguous())), image, window)
    else:

        def step():
            return predict(image)

    if options.logits:
        save_logits(options.logits, step())
    return step, lambda: f"ONNX Runtime {onnxruntime.__version__}"


if __name__ == "__main__":
    options = parser(__doc__).parse_args()
    serve(lambda: prepare(options))
