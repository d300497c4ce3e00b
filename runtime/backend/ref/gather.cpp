#include "runtime/backend/ref/ref.h"

namespace voxlab::ref {

void reference(const Gather::Attrs&, RefInputs in, RefOutputs out) {
  const int64_t rows = in[0].shape[0], width = rows == 0 ? 0 : in[0].numel() / rows;
  for (int64_t i = 0; i < in[1].numel(); ++i) {
    const int64_t row = checked_row(Gather::name, static_cast<int64_t>(in[1][i]), rows);
    for (int64_t j = 0; j < width; ++j) out[0][i * width + j] = in[0][row * width + j];
  }
}

void reference(const GatherGrad::Attrs& a, RefInputs in, RefOutputs out) {
  const int64_t width = out[0].numel() / a.rows;
  for (int64_t i = 0; i < in[1].numel(); ++i) {
    const int64_t row = checked_row(GatherGrad::name, static_cast<int64_t>(in[1][i]), a.rows);
    for (int64_t j = 0; j < width; ++j) out[0][row * width + j] += in[0][i * width + j];
  }
}

}  // namespace voxlab::ref
