"""Times voxlab's ONNX file of a network in OpenVINO, with the inference precision named; see README.md."""

import numpy
import openvino

from worker import array_inference, parser, serve


def prepare(options):
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
        # Shared memory: neither input nor output is copied, and the next result takes this one's place.
        return request.infer([x], share_inputs=True, share_outputs=True)[0]

    step = array_inference(options, list(compiled.inputs[0].shape[2:]), predict, keep=numpy.copy)
    return step, lambda: f"OpenVINO {openvino.__version__.split('-')[0]}, precision {kind}"


if __name__ == "__main__":
    options = parser(__doc__).parse_args()
    serve(lambda: prepare(options))
