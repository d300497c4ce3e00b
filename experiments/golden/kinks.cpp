#include "experiments/golden/kinks.h"

#include <cmath>

#include "runtime/ops/unary.h"

namespace voxlab {

void KinkWatch::on_call(const CallEvent& event) {
  if (event.op.name != Unary::name) return;
  const UnaryKind kind = static_cast<const Unary::Attrs*>(event.attrs.get())->kind;
  const bool rectifier = kind == UnaryKind::relu || kind == UnaryKind::leaky_relu;
  if (!rectifier && kind != UnaryKind::hardswish) return;
  const double first = rectifier ? 0 : -3, last = rectifier ? 0 : 3;
  std::vector<uint8_t>& pieces = pieces_.emplace_back();
  for (double v : event.inputs[0].to_vector()) pieces.push_back(static_cast<uint8_t>((v > first) + (v > last)));
}

int64_t flipped(const KinkWatch& a, const KinkWatch& b) {
  if (a.pieces().size() != b.pieces().size()) return -1;
  int64_t count = 0;
  for (size_t call = 0; call < a.pieces().size(); ++call) {
    const std::vector<uint8_t>&x = a.pieces()[call], &y = b.pieces()[call];
    if (x.size() != y.size()) return -1;
    for (size_t i = 0; i < x.size(); ++i) count += x[i] != y[i];
  }
  return count;
}

// Coarser products flip more activations, whose effects add up like independent ones.
double kink_limit(const GoldenBound& bound) { return 1e-2 * std::sqrt(bound.factor); }

std::string kink_note(int64_t flipped) {
  return std::to_string(flipped) + " activation(s) crossed a kink by rounding; over the limit of smooth gradients";
}

}  // namespace voxlab
