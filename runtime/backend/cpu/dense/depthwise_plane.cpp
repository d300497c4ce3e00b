#include "runtime/backend/cpu/dense/depthwise_plane.h"

#include <algorithm>
#include <array>
#include <vector>

#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {
namespace {

constexpr int taps = 9;

// A gather from `x`: output (row, column) reads rows row - pad[0] ... + 2 and columns alike.
struct Plane {
  ConstBuffer x;  // f32 or bf16
  int64_t images;
  std::array<int64_t, 2> in, out, pad;
  int64_t channels;
  std::vector<float> zeros;  // the position outside

  bool f32() const { return x.dtype == DType::f32; }
  int64_t rows() const { return images * out[0]; }
  int64_t macs() const { return rows() * out[1] * channels * taps; }
  int64_t at(int64_t row, int64_t column) const { return (row * out[1] + column) * channels; }

  // f(tile of the row, its first column, its outputs) with the positions that it reads listed.
  template <class F>
  void for_tiles(int64_t row, const F& f) const {
    std::array<const void*, 3 * (max_plane_outputs + 2)> positions;
    const auto* const outside = reinterpret_cast<const std::byte*>(zeros.data());
    const int64_t image = row / out[0], h = row % out[0], pixel = channels * static_cast<int64_t>(size_of(x.dtype));
    for (int64_t column = 0; column < out[1]; column += max_plane_outputs) {
      const int64_t outputs = std::min<int64_t>(max_plane_outputs, out[1] - column);
      for (int64_t r = 0; r < 3; ++r) {
        const int64_t at_h = h + r - pad[0];
        for (int64_t i = 0; i < outputs + 2; ++i) {
          const int64_t at_w = column + i - pad[1];
          const bool inside = at_h >= 0 && at_h < in[0] && at_w >= 0 && at_w < in[1];
          const int64_t offset = ((image * in[0] + at_h) * in[1] + at_w) * pixel;
          positions[static_cast<size_t>(r * (outputs + 2) + i)] = inside ? static_cast<const std::byte*>(x.data) + offset : outside;
        }
      }
      f(positions.data(), column, outputs);
    }
  }
};

Plane forward_plane(const ConvGeometry& g, ConstBuffer x) {
  const std::array<int64_t, 3> out = g.out();
  return {.x = x,
          .images = g.batch * g.in[0],
          .in = {g.in[1], g.in[2]},
          .out = {out[1], out[2]},
          .pad = {g.pad[1], g.pad[2]},
          .channels = g.in_channels,
          .zeros = std::vector<float>(static_cast<size_t>(g.in_channels))};
}

// `to(place of the first output)` is where a tile goes; then done(that place, its outputs).
template <class To, class Done>
void gather(const KernelTable& kernels, const Plane& plane, const std::array<const float*, taps>& w, const float* bias, const To& to,
            const Done& done) {
  parallel_for(plane.rows(), task_grain(plane.rows(), plane.macs()), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      plane.for_tiles(row, [&](const void* const* positions, int64_t column, int64_t outputs) {
        float* const y = to(plane.at(row, column));
        kernels.depthwise_plane[plane.f32() ? 0 : 1][outputs - 1](
            {.x = positions, .w = w.data(), .bias = bias, .dy = nullptr, .y = y, .channels = plane.channels});
        done(row * plane.out[1] + column, outputs, y);
      });
    }
  });
}

// The kernel's positions in order, or turned by half.
std::array<const float*, taps> weights_of(const ConvGeometry& g, const float* w, bool turned) {
  std::array<const float*, taps> weights;
  for (int64_t i = 0; i < taps; ++i) weights[static_cast<size_t>(i)] = w + (turned ? taps - 1 - i : i) * g.in_channels;
  return weights;
}

}  // namespace

bool is_depthwise_plane(const ConvGeometry& g, const Epilogue& epilogue) {
  constexpr int64_t many =
      64;  // below, what is done once a position weighs more than the gathering
  const auto one = [](const std::array<int64_t, 3>& v) {
    return v[0] == 1 && v[1] == 1 && v[2] == 1;
  };
  return g.kernel == std::array<int64_t, 3>{1, 3, 3} && one(g.stride) && one(g.dilation) &&
         g.pad[0] == 0 && g.groups == g.in_channels && g.groups == g.out_channels &&
         g.in_channels >= many && epilogue.activation == Activation::none;
}

void depthwise_plane_forward(const KernelTable& kernels, const ConvGeometry& g, const float* x,
                             const float* w, float* y, const float* bias) {
  gather(kernels, forward_plane(g, {x}), weights_of(g, w, false), bias, [&](int64_t at) { return y + at; }, [](auto...) {});
}

void depthwise_plane_rows(const KernelTable& kernels, const ConvGeometry& g, ConstBuffer x, const float* w, const float* bias,
                          const UseRows& use) {
  const auto own = [&](int64_t) { return scratch(Purpose::tile, max_plane_outputs * g.in_channels); };
  gather(kernels, forward_plane(g, x), weights_of(g, w, false), bias, own, use);
}

// The same with the kernel turned by half and what is missing of the padding.
void depthwise_plane_dgrad(const KernelTable& kernels, const ConvGeometry& g, const float* dy,
                           const float* w, float* dx, const float* bias) {
  Plane plane = forward_plane(g, {dy});
  std::swap(plane.in, plane.out);
  plane.pad = {2 - plane.pad[0], 2 - plane.pad[1]};
  gather(kernels, plane, weights_of(g, w, true), bias, [&](int64_t at) { return dx + at; }, [](auto...) {});
}

// Each thread sums its own rows; the sums are added in order.
void depthwise_plane_wgrad(const KernelTable& kernels, const ConvGeometry& g, const float* x,
                           const float* dy, float* dw) {
  const Plane plane = forward_plane(g, {x});
  const int64_t weights = taps * plane.channels;
  const int64_t parts = std::clamp<int64_t>(thread_count(), 1, std::max<int64_t>(plane.rows(), 1));
  float* partial = scratch(Purpose::partial, (parts - 1) * weights);
  parallel_for(parts, task_grain(parts, plane.macs()), [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      float* sums = part == 0 ? dw : partial + (part - 1) * weights;
      std::fill_n(sums, weights, 0.0F);
      for (int64_t row = plane.rows() * part / parts; row < plane.rows() * (part + 1) / parts;
           ++row)
        plane.for_tiles(row, [&](const void* const* positions, int64_t column, int64_t outputs) {
          kernels.depthwise_plane_wgrad[outputs - 1]({.x = positions,
                                                      .w = nullptr,
                                                      .bias = nullptr,
                                                      .dy = dy + plane.at(row, column),
                                                      .y = sums,
                                                      .channels = plane.channels});
        });
    }
  });
  for (int64_t part = 1; part < parts; ++part)
    kernels.add(partial + (part - 1) * weights, weights, dw);
}

}  // namespace voxlab::cpu
