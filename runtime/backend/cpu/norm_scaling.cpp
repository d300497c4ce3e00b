// The block of 3D UX-Net: layer norm and channel scaling of rows, their gradient, and both behind their depthwise convolution.
#include "runtime/ops/norm_scaling.h"

#include <array>
#include <vector>

#include "runtime/backend/cpu/conv_binding.h"
#include "runtime/backend/cpu/dense/passes.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/driver.h"

namespace voxlab::cpu {
namespace {

// The seven parameters, null where they are left out.
class Parameters {
 public:
  Parameters(Descs descs, Pointers data, size_t first, int64_t channels, int64_t ratio) : channels_(channels), ratio_(ratio) {
    for (size_t i = 0; i < scaling_inputs; ++i) at_[i] = optional(descs, data, first + i);
  }
  float operator()(ScalingInput i, int64_t at, float otherwise) const {
    const float* values = at_[static_cast<size_t>(i)];
    return values == nullptr ? otherwise : values[at];
  }
  float norm_weight(int64_t c) const { return (*this)(ScalingInput::norm_weight, c, 1); }
  float norm_bias(int64_t c) const { return (*this)(ScalingInput::norm_bias, c, 0); }
  float gamma(int64_t c) const { return (*this)(ScalingInput::gamma, c, 1); }
  float reduce_bias(int64_t c) const { return (*this)(ScalingInput::reduce_bias, c, 0); }
  int64_t channels() const { return channels_; }
  int64_t ratio() const { return ratio_; }

  // f(channel, of its own, place among the expanded ones, place in rows of channels)
  template <class F>
  void for_expanded(const F& f) const {
    for (int64_t r = 0; r < ratio_; ++r)
      for (int64_t c = 0; c < channels_; ++c) f(c, c * ratio_ + r, r * channels_ + c);
  }

 private:
  std::array<const float*, scaling_inputs> at_;
  int64_t channels_, ratio_;
};

// Norm and gamma go into the scalings' weights and biases.
class FoldedRows {
 public:
  explicit FoldedRows(const Parameters& p) : wide_(p.channels() * p.ratio()), ratio_(p.ratio()), values_(static_cast<size_t>(3 * wide_ + p.channels())) {
    float *const expand = values_.data(), *const bias = expand + wide_, *const reduce = bias + wide_, *const reduce_bias = reduce + wide_;
    p.for_expanded([&](int64_t c, int64_t spread, int64_t row) {
      const float weight = p(ScalingInput::expand, spread, 0);
      expand[row] = weight * p.norm_weight(c);
      bias[row] = weight * p.norm_bias(c) + p(ScalingInput::expand_bias, spread, 0);
      reduce[row] = p(ScalingInput::reduce, row, 0) * p.gamma(c);
    });
    for (int64_t c = 0; c < p.channels(); ++c) reduce_bias[c] = p.reduce_bias(c) * p.gamma(c);
  }
  ScalingRows rows() const {
    const float* v = values_.data();
    return {.expand = v, .expand_bias = v + wide_, .reduce = v + 2 * wide_, .reduce_bias = v + 3 * wide_, .ratio = ratio_};
  }

 private:
  int64_t wide_, ratio_;
  std::vector<float> values_;
};

int64_t ratio_of(Descs in, size_t first) {
  const Shape& reduce = in[first + static_cast<size_t>(ScalingInput::reduce)].shape();
  return reduce.numel() / reduce[-1];
}

}  // namespace

Kernel prepare(const NormScaling::Attrs& a, Descs in, Descs) {
  if (!all_f32(in)) return {};
  const NormGeometry g = LayerNorm::geometry(a, in[0].shape());
  return {.name = loop_name(NormScaling::name),
          .run = [g, eps = a.eps, ratio = ratio_of(in, 1), descs = std::vector<TensorDesc>(in.begin(), in.end())](
                     Pointers data, Pointers out, std::byte*) {
            const FoldedRows parameters(Parameters(descs, data, 1, g.channels, ratio));
            const float* residual = optional(descs, data, 1 + scaling_inputs);
            parallel_for(g.batch, grain_rows(g.channels * ratio), [&](int64_t begin, int64_t end) {
              const int64_t at = begin * g.channels;
              active_loops().norm_scaling({.x = floats(data[0]) + at,
                                           .residual = residual == nullptr ? nullptr : residual + at,
                                           .dy = nullptr,
                                           .y = floats(out[0]) + at,
                                           .rows = end - begin,
                                           .columns = g.channels,
                                           .parameters = parameters.rows(),
                                           .mean = floats(out[1]) + begin,
                                           .rstd = floats(out[2]) + begin,
                                           .sums = nullptr,
                                           .partial = nullptr,
                                           .epsilon = eps});
            });
          }};
}

namespace {

// From the sums of the folded parameters (see NormScalingArgs) to the gradients of the seven. Sums are of the normalised x before
// the norm's weight and bias, and of dy before gamma.
void unfold(const Parameters& p, const std::vector<double>& sums, Pointers out) {
  const int64_t channels = p.channels(), wide = channels * p.ratio();
  const auto to = [&](ScalingInput i) { return floats(out[1 + static_cast<size_t>(i)]); };
  const auto of = [&](int64_t part, int64_t row) { return sums[static_cast<size_t>(part * wide + row)]; };
  std::vector<double> weight(static_cast<size_t>(channels)), bias = weight, factor = weight;
  p.for_expanded([&](int64_t c, int64_t spread, int64_t row) {
    const auto k = static_cast<size_t>(c);
    const double dreduce = of(0, row), dbias = of(1, row), dexpand = of(2, row), expand = p(ScalingInput::expand, spread, 0);
    to(ScalingInput::reduce)[row] = static_cast<float>(dreduce * p.gamma(c));
    to(ScalingInput::expand_bias)[spread] = static_cast<float>(dbias);
    to(ScalingInput::expand)[spread] = static_cast<float>(dexpand * p.norm_weight(c) + dbias * p.norm_bias(c));
    weight[k] += dexpand * expand;
    bias[k] += dbias * expand;
    factor[k] += dreduce * p(ScalingInput::reduce, row, 0);
  });
  for (int64_t c = 0; c < channels; ++c) {
    const auto k = static_cast<size_t>(c);
    const double dy = of(3, c);
    to(ScalingInput::norm_weight)[c] = static_cast<float>(weight[k]);
    to(ScalingInput::norm_bias)[c] = static_cast<float>(bias[k]);
    to(ScalingInput::reduce_bias)[c] = static_cast<float>(dy * p.gamma(c));
    to(ScalingInput::gamma)[c] = static_cast<float>(factor[k] + dy * p.reduce_bias(c));
  }
}

}  // namespace

Kernel prepare(const NormScalingGrad::Attrs& a, Descs in, Descs) {
  if (!all_f32(in)) return {};
  const NormGeometry g = LayerNorm::geometry(a, in[1].shape());
  return {.name = loop_name(NormScalingGrad::name),
          .run = [g, ratio = ratio_of(in, 2), descs = std::vector<TensorDesc>(in.begin(), in.end())](Pointers data, Pointers out, std::byte*) {
            const Parameters parameters(descs, data, 2, g.channels, ratio);
            const FoldedRows folded(parameters);
            const auto count = static_cast<size_t>((3 * ratio + 1) * g.channels);
            std::vector<double> sums(static_cast<size_t>(thread_count()) * count);
            std::vector<float> partial(sums.size());
            parallel_pieces(g.batch, grain_rows(g.channels * ratio), [&](int piece, int64_t begin, int64_t end) {
              const size_t t = static_cast<size_t>(piece) * count;
              const int64_t at = begin * g.channels;
              active_loops().norm_scaling_grad({.x = floats(data[1]) + at,
                                                .residual = nullptr,
                                                .dy = floats(data[0]) + at,
                                                .y = floats(out[0]) + at,
                                                .rows = end - begin,
                                                .columns = g.channels,
                                                .parameters = folded.rows(),
                                                .mean = floats(data[2 + scaling_inputs]) + begin,
                                                .rstd = floats(data[3 + scaling_inputs]) + begin,
                                                .sums = &sums[t],
                                                .partial = &partial[t],
                                                .epsilon = 0});
            });
            for (size_t i = count; i < sums.size(); ++i) sums[i % count] += sums[i];
            unfold(parameters, sums, out);
          }};
}

Kernel prepare(const ConvNormScaling::Attrs& a, Descs in, Descs out) {
  const ConvGeometry g = dense_geometry(Conv::geometry({a}, in[0].shape(), in[1].shape(), out[0].shape()));
  if (!all_f32(in) || !all_f32(out) || !is_depthwise(g, active_kernels().width)) return {};
  return {.name = loop_name("depthwise_norm_scaling"),
          .run = [g, eps = a.eps, ratio = ratio_of(in, 3), descs = std::vector<TensorDesc>(in.begin(), in.end())](
                     Pointers data, Pointers to, std::byte*) {
            const int64_t channels = g.out_channels;
            const FoldedRows parameters(Parameters(descs, data, 3, channels, ratio));
            depthwise_forward_rows(active_kernels(), g, floats(data[0]), floats(data[1]), optional(descs, data, 2),
                                   [&](int64_t first, int64_t rows, const float* made) {
                                     active_loops().norm_scaling({.x = made,
                                                                  .residual = floats(data[0]) + first * channels,
                                                                  .dy = nullptr,
                                                                  .y = floats(to[0]) + first * channels,
                                                                  .rows = rows,
                                                                  .columns = channels,
                                                                  .parameters = parameters.rows(),
                                                                  .mean = nullptr,
                                                                  .rstd = nullptr,
                                                                  .sums = nullptr,
                                                                  .partial = nullptr,
                                                                  .epsilon = eps});
                                   });
          }};
}

}  // namespace voxlab::cpu
