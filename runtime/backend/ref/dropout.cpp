#include "runtime/backend/ref/ref.h"

namespace voxlab::ref {

void reference(const Dropout::Attrs& a, RefInputs in, RefOutputs out) {
  const Philox random(a.seed, a.stream, static_cast<uint32_t>(in[1][0]));
  const Shape& shape = in[0].shape;
  for (int64_t i = 0; i < out[0].numel(); ++i) {
    int64_t unit = i;
    if (a.unit != DropUnit::element) unit = i / (out[0].numel() / shape[0]);
    if (a.unit == DropUnit::channel) unit = unit * shape[-1] + i % shape[-1];
    const double factor = Dropout::factor(a, random, static_cast<uint64_t>(unit));
    out[0][i] = factor == 0 ? 0 : in[0][i] * factor;
  }
}

}  // namespace voxlab::ref
