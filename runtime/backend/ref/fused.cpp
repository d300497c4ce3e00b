#include "runtime/backend/ref/ref.h"

namespace voxlab::ref {
namespace {

void finish(const Finish& f, const Array* residual, Array& y) {
  if (residual != nullptr && residual->present)
    for (int64_t i = 0; i < y.numel(); ++i) y[i] += (*residual)[i];
  if (f.activation == Activation::none) return;
  const Unary::Attrs activation{{.kind = parse_enum<UnaryKind>(to_string(f.activation)), .alpha = f.slope}};
  const Array x = y;
  reference(activation, {&x, 1}, {&y, 1});
}

Array zeros(const Shape& s) { return {s, std::vector<double>(static_cast<size_t>(s.numel()))}; }

const Array* at(RefInputs in, size_t i) { return i < in.size() ? &in[i] : nullptr; }

}  // namespace

void reference(const FusedConv::Attrs& a, RefInputs in, RefOutputs out) {
  std::vector<Array> parts(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(3, in.size())));
  if (in.size() > 4 && in[4].present) {
    const std::array<Array, 2> halves{in[0], in[4]};
    Shape shape = in[0].shape;
    shape.set(-1, shape[-1] + in[4].shape[-1]);
    parts[0] = zeros(shape);
    reference(Concat::Attrs{}, halves, {&parts[0], 1});
  }
  reference(Conv::Attrs{a}, parts, out);
  finish(a, at(in, 3), out[0]);
}

void reference(const FusedLinear::Attrs& a, RefInputs in, RefOutputs out) {
  reference(Linear::Attrs{}, in.subspan(0, std::min<size_t>(3, in.size())), out);
  finish(a, at(in, 3), out[0]);
}

void reference(const FusedGroupNorm::Attrs& a, RefInputs in, RefOutputs out) {
  const auto normal = [&](RefInputs from) {
    const Shape statistics{from[0].shape[0], a.groups};
    std::vector<Array> outputs{zeros(from[0].shape), zeros(statistics), zeros(statistics)};
    reference(GroupNorm::Attrs{a}, from, outputs);
    return outputs[0];
  };
  out[0] = normal(in.subspan(0, std::min<size_t>(3, in.size())));
  if (!a.norm_residual) return finish(a, at(in, 3), out[0]);
  const Array residual = normal(in.subspan(3));
  finish(a, &residual, out[0]);
}

void reference(const FusedAttention::Attrs&, RefInputs in, RefOutputs out) {
  Shape shape = out[0].shape;
  shape.set(-1, in[1].shape[-1]);
  std::vector<Array> scores{zeros(shape)}, weights{zeros(shape)};
  reference(Matmul::Attrs{}, in.subspan(0, 2), scores);
  if (const Array* bias = at(in, 3); bias != nullptr && bias->present) {
    const std::array<Array, 2> sum{scores[0], *bias};
    reference(Binary::Attrs{.kind = BinaryKind::add}, sum, scores);
  }
  reference(Softmax::Attrs{}, scores, weights);
  const std::array<Array, 2> product{weights[0], in[2]};
  reference(Matmul::Attrs{}, product, out);
}

}  // namespace voxlab::ref
