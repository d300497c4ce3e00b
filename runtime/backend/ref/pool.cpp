#include "runtime/backend/ref/ref.h"

namespace voxlab::ref {
namespace {

// Calls f(voxel of x, voxel of y, weight) for every member of every window; voxels count over batch
// and space.
template <class F>
void for_each_member(const AvgPoolAttrs& a, const Shape& x, const Shape& y, F f) {
  std::array<std::vector<PoolWindow>, 3> windows;
  std::array<int64_t, 3> size{1, 1, 1};
  for (size_t axis = 0; axis < 3; ++axis) {
    const int at = static_cast<int>(axis) + x.rank() - 5;  // 2-d and 1-d get leading axes of size 1
    if (at >= 0) size[axis] = x[at + 1];
    windows[axis] = at >= 0 ? pool_windows(a, x, y, at) : std::vector<PoolWindow>{{0, 1, 1}};
  }
  int64_t to = 0;
  for (int64_t n = 0; n < x[0]; ++n)
    for (const PoolWindow& d : windows[0])
      for (const PoolWindow& h : windows[1])
        for (const PoolWindow& w : windows[2]) {
          for (int64_t i = d.begin; i < d.end; ++i)
            for (int64_t j = h.begin; j < h.end; ++j)
              for (int64_t k = w.begin; k < w.end; ++k)
                f(((n * size[0] + i) * size[1] + j) * size[2] + k, to,
                  d.weight * h.weight * w.weight);
          ++to;
        }
}

}  // namespace

void reference(const AvgPool::Attrs& a, RefInputs in, RefOutputs out) {
  const int64_t channels = in[0].shape[-1];
  for_each_member(a, in[0].shape, out[0].shape, [&](int64_t x, int64_t y, double weight) {
    for (int64_t c = 0; c < channels; ++c)
      out[0][y * channels + c] += weight * in[0][x * channels + c];
  });
}

void reference(const AvgPoolGrad::Attrs& a, RefInputs in, RefOutputs out) {
  const int64_t channels = in[0].shape[-1];
  for_each_member(a, out[0].shape, in[0].shape, [&](int64_t x, int64_t y, double weight) {
    for (int64_t c = 0; c < channels; ++c)
      out[0][x * channels + c] += weight * in[0][y * channels + c];
  });
}

}  // namespace voxlab::ref
