"""Times voxlab's ONNX file of a network in ONNX Runtime, f32; see README.md."""

import onnxruntime

from worker import array_inference, parser, serve


def prepare(options):
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(options.files / "net.onnx"), settings, providers=["CPUExecutionProvider"]
    )

    def predict(x):
        return session.run(None, {"image": x})[0]

    step = array_inference(options, session.get_inputs()[0].shape[2:], predict)
    return step, lambda: f"ONNX Runtime {onnxruntime.__version__}"


if __name__ == "__main__":
    options = parser(__doc__).parse_args()
    serve(lambda: prepare(options))
