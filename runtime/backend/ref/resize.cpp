#include <array>

#include "runtime/backend/ref/ref.h"

namespace voxlab::ref {
namespace {

// Calls f(coarse voxel, fine voxel, weight) with the taps of a resize from `from` to `to`; voxels count
// over batch and space.
template <class F>
void for_each_tap(const ResizeAttrs& a, const Shape& from, const Shape& to, F f) {
  std::array<std::vector<ResizeTap>, 3> taps;
  std::array<int64_t, 3> in{1, 1, 1}, out{1, 1, 1};
  for (size_t axis = 0; axis < 3; ++axis) {
    const int at = static_cast<int>(axis) + from.rank() - 4;  // 2-d and 1-d get leading axes of size 1
    if (at >= 1) in[axis] = from[at], out[axis] = to[at];
    taps[axis] = resize_taps(a.mode, a.align_corners, in[axis], out[axis]);
  }
  const auto index = [](const ResizeTap& t, int side) { return side ? t.high : t.low; };
  const auto weight = [](const ResizeTap& t, int side) { return side ? t.fraction : 1 - t.fraction; };
  int64_t fine = 0;
  for (int64_t n = 0; n < from[0]; ++n)
    for (const ResizeTap& d : taps[0])
      for (const ResizeTap& h : taps[1])
        for (const ResizeTap& w : taps[2]) {
          for (int corner = 0; corner < 8; ++corner) {
            const int i = corner >> 2, j = corner >> 1 & 1, k = corner & 1;
            const double factor = weight(d, i) * weight(h, j) * weight(w, k);
            if (factor == 0) continue;
            f(((n * in[0] + index(d, i)) * in[1] + index(h, j)) * in[2] + index(w, k), fine, factor);
          }
          ++fine;
        }
}

}  // namespace

void reference(const Resize::Attrs& a, RefInputs in, RefOutputs out) {
  const int64_t channels = in[0].shape[-1];
  for_each_tap(a, in[0].shape, out[0].shape, [&](int64_t coarse, int64_t fine, double weight) {
    for (int64_t c = 0; c < channels; ++c) out[0][fine * channels + c] += weight * in[0][coarse * channels + c];
  });
}

void reference(const ResizeGrad::Attrs& a, RefInputs in, RefOutputs out) {
  const int64_t channels = in[0].shape[-1];
  for_each_tap(a, out[0].shape, in[0].shape, [&](int64_t coarse, int64_t fine, double weight) {
    for (int64_t c = 0; c < channels; ++c) out[0][coarse * channels + c] += weight * in[0][fine * channels + c];
  });
}

}  // namespace voxlab::ref
