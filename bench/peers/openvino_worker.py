"""Times voxlab's ONNX file of a network in OpenVINO, with the inference precision named; see README.md."""

import openvino
import torch
from safetensors.torch import load_file

from worker import over_windows, parser, save_logits, serve


def prepare(options):
    torch.set_num_threads(options.threads)
    image = load_file(options.files / f"{'volume' if options.mode == 'volume' else 'image'}.safetensors")["image"]
    compiled = openvino.Core().compile_model(
        options.files / "net.onnx",
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": options.precision,
            "INFERENCE_NUM_THREADS": options.threads,
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    request = compiled.create_infer_request()
    kind = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()

    def predict(x):
        # Shared memory: neither input nor output is copied.
        return request.infer([x.numpy()], share_inputs=True, share_outputs=True)[0]

    if options.mode == "volume":
        window = compiled.inputs[0].shape[2:]

        def step():
            # A window's result lies in memory that the next window's takes: hence the copy.
            return over_windows(lambda x: torch.from_numpy(predict(x.contiguous()).copy()), image, list(window))
    else:

        def step():
            return predict(image)

    if options.logits:
        save_logits(options.logits, step())
    return step, lambda: f"OpenVINO {openvino.__version__.split('-')[0]}, precision {kind}"


if __name__ == "__main__":
    options = parser(__doc__).parse_args()
    serve(lambda: prepare(options))
