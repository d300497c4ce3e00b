// Resize, average pooling and their adjoints: an output row is a weighted sum of input rows (the
// depth and height taps), followed by weighted sums of voxels along it (the width taps). An adjoint
// runs on the taps turned around, so each result is written once, by one thread.
#include "runtime/backend/cpu/driver.h"

namespace voxlab::cpu {
namespace {

// Of one axis: output i reads inputs index[start[i]] .. index[start[i + 1] - 1].
struct Taps {
  std::vector<int64_t> start{0}, index;
  std::vector<float> weight;
  int64_t inputs = 1;
  int64_t outputs() const { return static_cast<int64_t>(start.size()) - 1; }
  int64_t first(int64_t i) const { return start[static_cast<size_t>(i)]; }
  int64_t input(int64_t k) const { return index[static_cast<size_t>(k)]; }
};

// Along one axis, element `to` of the op's result reads `weight` times element `from` of its
// argument.
struct Entry {
  int64_t from, to;
  double weight;
};

std::vector<Entry> resize_entries(const ResizeAttrs& a, int64_t from, int64_t to) {
  std::vector<Entry> entries;
  int64_t at = 0;
  for (const ResizeTap& t : resize_taps(a.mode, a.align_corners, from, to)) {
    if (t.fraction != 1) entries.push_back({t.low, at, 1 - t.fraction});
    if (t.fraction != 0) entries.push_back({t.high, at, t.fraction});
    ++at;
  }
  return entries;
}

std::vector<Entry> pool_entries(const AvgPoolAttrs& a, const Shape& x, const Shape& y, int axis) {
  std::vector<Entry> entries;
  int64_t at = 0;
  for (const PoolWindow& w : pool_windows(a, x, y, axis)) {
    for (int64_t i = w.begin; i < w.end; ++i) entries.push_back({i, at, w.weight});
    ++at;
  }
  return entries;
}

// `entries` in ascending order of `to`, of an op between axes of `from` and `to` elements.
Taps make_taps(std::vector<Entry> entries, int64_t from, int64_t to, bool adjoint) {
  if (adjoint)
    std::stable_sort(entries.begin(), entries.end(),
                     [](const Entry& l, const Entry& r) { return l.from < r.from; });
  Taps taps{.inputs = adjoint ? to : from};
  size_t next = 0;
  for (int64_t i = 0; i < (adjoint ? from : to); ++i) {
    for (; next < entries.size() && (adjoint ? entries[next].from : entries[next].to) == i;
         ++next) {
      taps.index.push_back(adjoint ? entries[next].to : entries[next].from);
      taps.weight.push_back(static_cast<float>(entries[next].weight));
    }
    taps.start.push_back(static_cast<int64_t>(taps.index.size()));
  }
  return taps;
}

struct ResizePlan {
  std::array<Taps, 3> taps;
  int64_t batch = 1, channels = 1;
  int storage = 0;
};

void resize_rows(const ResizePlan& plan, const std::byte* x, std::byte* y, int64_t begin,
                 int64_t end) {
  const auto& [depth, height, width] = plan.taps;
  const int64_t bytes = plan.storage == 0 ? 4 : 2;
  const int64_t in_row = width.inputs * plan.channels, out_row = width.outputs() * plan.channels;
  std::vector<float> blended(static_cast<size_t>(in_row));
  std::vector<const void*> rows;
  std::vector<float> weights;
  for (int64_t r = begin; r < end; ++r) {
    const int64_t h = r % height.outputs(), d = r / height.outputs() % depth.outputs();
    const int64_t n = r / height.outputs() / depth.outputs();
    rows.clear();
    weights.clear();
    for (int64_t i = depth.first(d); i < depth.first(d + 1); ++i)
      for (int64_t j = height.first(h); j < height.first(h + 1); ++j) {
        const int64_t row = (n * depth.inputs + depth.input(i)) * height.inputs + height.input(j);
        rows.push_back(x + row * in_row * bytes);
        weights.push_back(depth.weight[static_cast<size_t>(i)] *
                          height.weight[static_cast<size_t>(j)]);
      }
    const Loops& loops = active_loops();
    loops.blend_rows[plan.storage]({.rows = rows.data(),
                                    .weights = weights.data(),
                                    .count = static_cast<int64_t>(rows.size()),
                                    .n = in_row,
                                    .y = blended.data()});
    loops.blend_taps[plan.storage]({.x = blended.data(),
                                    .start = width.start.data(),
                                    .index = width.index.data(),
                                    .weight = width.weight.data(),
                                    .y = y + r * out_row * bytes,
                                    .outputs = width.outputs(),
                                    .channels = plan.channels});
  }
}

// `x` and `y` are argument and result of the op itself, whichever of them the kernel reads;
// entries(axis) are those of a spatial axis.
template <class Entries>
Kernel taps_kernel(std::string name, const TensorDesc& x, const TensorDesc& y, bool adjoint,
                   Entries entries) {
  const TensorDesc& in = adjoint ? y : x;
  ResizePlan plan{
      .batch = in.shape()[0], .channels = in.shape()[-1], .storage = storage_of(in.dtype())};
  if (plan.storage < 0) return {};
  for (int axis = 0; axis < 3; ++axis) {
    const int at = axis + in.shape().rank() - 5;  // 2-d and 1-d get leading axes of size 1
    plan.taps[static_cast<size_t>(axis)] =
        at < 0 ? make_taps({{0, 0, 1}}, 1, 1, false)
               : make_taps(entries(at), x.shape()[at + 1], y.shape()[at + 1], adjoint);
  }
  return {
      .name = std::move(name), .run = [plan = std::move(plan)](Pointers x, Pointers y, std::byte*) {
        const auto& [depth, height, width] = plan.taps;
        parallel_for(plan.batch * depth.outputs() * height.outputs(),
                     grain_rows(width.outputs() * plan.channels), [&](int64_t begin, int64_t end) {
                       resize_rows(plan, x[0], y[0], begin, end);
                     });
      }};
}

template <class Op>
Kernel resize_kernel(const ResizeAttrs& a, const TensorDesc& x, const TensorDesc& y, bool adjoint) {
  return taps_kernel(loop_name(Op::name, to_string(a.mode)), x, y, adjoint, [&](int axis) {
    return resize_entries(a, x.shape()[axis + 1], y.shape()[axis + 1]);
  });
}

template <class Op>
Kernel pool_kernel(const AvgPoolAttrs& a, const TensorDesc& x, const TensorDesc& y, bool adjoint) {
  return taps_kernel(loop_name(Op::name), x, y, adjoint,
                     [&](int axis) { return pool_entries(a, x.shape(), y.shape(), axis); });
}

}  // namespace

Kernel prepare(const Resize::Attrs& a, Descs in, Descs out) {
  return resize_kernel<Resize>(a, in[0], out[0], false);
}
Kernel prepare(const ResizeGrad::Attrs& a, Descs in, Descs out) {
  return resize_kernel<ResizeGrad>(a, out[0], in[0], true);
}
Kernel prepare(const AvgPool::Attrs& a, Descs in, Descs out) {
  return pool_kernel<AvgPool>(a, in[0], out[0], false);
}
Kernel prepare(const AvgPoolGrad::Attrs& a, Descs in, Descs out) {
  return pool_kernel<AvgPoolGrad>(a, out[0], in[0], true);
}

}  // namespace voxlab::cpu
