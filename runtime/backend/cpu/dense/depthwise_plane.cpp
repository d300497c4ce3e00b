#include "runtime/backend/cpu/dense/depthwise_plane.h"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {
namespace {

constexpr int taps = 9;

// A gather from `x`: output (row, column) reads rows row - pad[0] ... + 2 and columns alike.
struct Plane {
  const float* x;
  int64_t images;
  std::array<int64_t, 2> in, out, pad;
  int64_t channels;
  std::vector<float> zeros;  // the position outside

  int64_t rows() const { return images * out[0]; }
  int64_t macs() const { return rows() * out[1] * channels * taps; }
  float* at(float* y, int64_t row, int64_t column) const {
    return y + (row * out[1] + column) * channels;
  }
  const float* at(const float* y, int64_t row, int64_t column) const {
    return y + (row * out[1] + column) * channels;
  }

  // Where a row of the input lies.
  const float* input_row(int64_t image, int64_t h) const { return x + (image * in[0] + h) * in[1] * channels; }

  template <class F>
  void for_tiles(int64_t row, const F& f) const {
    for_tiles(row, [this](int64_t image, int64_t h) { return input_row(image, h); }, f);
  }
  // f(tile of the row, its first column, its outputs) with the positions that it reads listed; `row_at` as input_row.
  template <class RowAt, class F>
  void for_tiles(int64_t row, const RowAt& row_at, const F& f) const {
    std::array<const float*, 3 * (max_plane_outputs + 2)> positions;
    const int64_t image = row / out[0], h = row % out[0];
    for (int64_t column = 0; column < out[1]; column += max_plane_outputs) {
      const int64_t outputs = std::min<int64_t>(max_plane_outputs, out[1] - column);
      for (int64_t r = 0; r < 3; ++r) {
        const int64_t at_h = h + r - pad[0];
        const float* const line = at_h >= 0 && at_h < in[0] ? row_at(image, at_h) : nullptr;
        for (int64_t i = 0; i < outputs + 2; ++i) {
          const int64_t at_w = column + i - pad[1];
          const bool inside = line != nullptr && at_w >= 0 && at_w < in[1];
          positions[static_cast<size_t>(r * (outputs + 2) + i)] = inside ? line + at_w * channels : zeros.data();
        }
      }
      f(positions.data(), column, outputs);
    }
  }
};

Plane forward_plane(const ConvGeometry& g, const float* x) {
  const std::array<int64_t, 3> out = g.out();
  return {.x = x,
          .images = g.batch * g.in[0],
          .in = {g.in[1], g.in[2]},
          .out = {out[1], out[2]},
          .pad = {g.pad[1], g.pad[2]},
          .channels = g.in_channels,
          .zeros = std::vector<float>(static_cast<size_t>(g.in_channels))};
}

void gather(const KernelTable& kernels, const Plane& plane, const std::array<const float*, taps>& w,
            const float* bias, float* y) {
  parallel_for(
      plane.rows(), task_grain(plane.rows(), plane.macs()), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row)
          plane.for_tiles(row, [&](const float* const* positions, int64_t column, int64_t outputs) {
            kernels.depthwise_plane[outputs - 1]({.x = positions,
                                                  .w = w.data(),
                                                  .bias = bias,
                                                  .dy = nullptr,
                                                  .y = plane.at(y, row, column),
                                                  .channels = plane.channels});
          });
      });
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
  std::array<const float*, taps> weights;
  for (size_t i = 0; i < taps; ++i) weights[i] = w + static_cast<int64_t>(i) * g.in_channels;
  gather(kernels, forward_plane(g, x), weights, bias, y);
}

namespace {

// Rows of a bf16 input as f32, each widened once while a thread walks down an image.
class WidenedRows {
 public:
  WidenedRows(const KernelTable& kernels, const Plane& plane, const uint16_t* x)
      : kernels_(kernels), x_(x), rows_(plane.in[0]), floats_(plane.in[1] * plane.channels), wide_(scratch(Purpose::rows, held * floats_)) {}

  const float* operator()(int64_t image, int64_t h) {
    const int64_t row = image * rows_ + h;
    const auto slot = static_cast<size_t>(row % held);
    float* const to = wide_ + row % held * floats_;
    if (which_[slot] != row) kernels_.widen(x_ + row * floats_, floats_, to);
    which_[slot] = row;
    return to;
  }

 private:
  static constexpr int64_t held = 3;  // as many as a kernel reads
  const KernelTable& kernels_;
  const uint16_t* x_;
  int64_t rows_, floats_;
  float* wide_;
  std::array<int64_t, held> which_ = {-1, -1, -1};
};

}  // namespace

void depthwise_plane_rows(const KernelTable& kernels, const ConvGeometry& g, ConstBuffer x, const float* w, const float* bias,
                          const UseRows& use) {
  std::array<const float*, taps> weights;
  for (size_t i = 0; i < taps; ++i) weights[i] = w + static_cast<int64_t>(i) * g.in_channels;
  const bool f32 = x.dtype == DType::f32;
  const Plane plane = forward_plane(g, f32 ? static_cast<const float*>(x.data) : nullptr);
  parallel_for(plane.rows(), task_grain(plane.rows(), plane.macs()), [&](int64_t begin, int64_t end) {
    float* const made = scratch(Purpose::tile, max_plane_outputs * plane.channels);
    std::optional<WidenedRows> wide;
    if (!f32) wide.emplace(kernels, plane, static_cast<const uint16_t*>(x.data));
    const auto row_at = [&](int64_t image, int64_t h) { return wide ? (*wide)(image, h) : plane.input_row(image, h); };
    for (int64_t row = begin; row < end; ++row)
      plane.for_tiles(row, row_at, [&](const float* const* positions, int64_t column, int64_t outputs) {
        kernels.depthwise_plane[outputs - 1](
            {.x = positions, .w = weights.data(), .bias = bias, .dy = nullptr, .y = made, .channels = plane.channels});
        use(row * plane.out[1] + column, outputs, made);
      });
  });
}

// The same with the kernel turned by half and what is missing of the padding.
void depthwise_plane_dgrad(const KernelTable& kernels, const ConvGeometry& g, const float* dy,
                           const float* w, float* dx, const float* bias) {
  std::array<const float*, taps> weights;
  for (size_t i = 0; i < taps; ++i)
    weights[i] = w + static_cast<int64_t>(taps - 1 - i) * g.in_channels;
  Plane plane = forward_plane(g, dy);
  std::swap(plane.in, plane.out);
  plane.pad = {2 - plane.pad[0], 2 - plane.pad[1]};
  gather(kernels, plane, weights, bias, dx);
}

// Each thread sums its own rows; the sums are added in order.
void depthwise_plane_wgrad(const KernelTable& kernels, const ConvGeometry& g, const float* x,
                           const float* dy, float* dw) {
  const Plane plane = forward_plane(g, x);
  const int64_t weights = taps * plane.channels;
  const int64_t parts = std::clamp<int64_t>(thread_count(), 1, std::max<int64_t>(plane.rows(), 1));
  float* partial = scratch(Purpose::partial, (parts - 1) * weights);
  parallel_for(parts, task_grain(parts, plane.macs()), [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      float* sums = part == 0 ? dw : partial + (part - 1) * weights;
      std::fill_n(sums, weights, 0.0F);
      for (int64_t row = plane.rows() * part / parts; row < plane.rows() * (part + 1) / parts;
           ++row)
        plane.for_tiles(row, [&](const float* const* positions, int64_t column, int64_t outputs) {
          kernels.depthwise_plane_wgrad[outputs - 1]({.x = positions,
                                                      .w = nullptr,
                                                      .bias = nullptr,
                                                      .dy = plane.at(dy, row, column),
                                                      .y = sums,
                                                      .channels = plane.channels});
        });
    }
  });
  for (int64_t part = 1; part < parts; ++part)
    kernels.add(partial + (part - 1) * weights, weights, dw);
}

}  // namespace voxlab::cpu
