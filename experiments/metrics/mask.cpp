// Masks from label maps, their boxes and overlap counts.
#include "experiments/metrics/mask.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <string>

#include "runtime/core/error.h"
#include "runtime/core/parallel.h"

namespace voxlab {
namespace {

template <class T>
void mark_labels(const T* map, std::span<const int64_t> labels, std::vector<uint8_t>& voxels) {
  parallel_for(static_cast<int64_t>(voxels.size()), piece_of(1), [&](int64_t begin, int64_t end) {
    for (int64_t label : labels)
      for (int64_t i = begin; i < end; ++i)
        voxels[i] |= static_cast<uint8_t>(static_cast<int64_t>(map[i]) == label);
  });
}

double quotient(int64_t a, int64_t b) {
  if (b == 0) return std::numeric_limits<double>::quiet_NaN();
  return static_cast<double>(a) / static_cast<double>(b);
}

void include(Box& box, const Size3& low, const Size3& high) {
  for (int a = 0; a < 3; ++a) {
    box.begin[a] = std::min(box.begin[a], low[a]);
    box.end[a] = std::max(box.end[a], high[a]);
  }
}

void include_slice(Box& box, const Mask& mask, int64_t d) {
  const int64_t height = mask.size[1], width = mask.size[2];
  for (int64_t h = 0; h < height; ++h) {
    const uint8_t* row = mask.voxels.data() + (d * height + h) * width;
    const uint8_t* first = std::find_if(row, row + width, [](uint8_t v) { return v != 0; });
    if (first == row + width) continue;
    int64_t last = width;
    while (row[last - 1] == 0) --last;
    include(box, {d, h, first - row}, {d + 1, h + 1, last});
  }
}

std::string describe(const Mask& mask) {
  std::string text = mask.rank == 2 ? "" : std::to_string(mask.size[0]) + "x";
  return text + std::to_string(mask.size[1]) + "x" + std::to_string(mask.size[2]);
}

}  // namespace

Mask mask_of_labels(const Tensor& map, std::span<const int64_t> labels) {
  if (!map || (map.rank() != 2 && map.rank() != 3))
    fail("label map", "expected axes (D, H, W) or (H, W), got " +
                          (map ? map.meta().to_string() : std::string("nothing")));
  const Tensor dense = map.contiguous() ? map : map.clone();
  Mask mask;
  mask.rank = map.rank();
  mask.size = {map.rank() == 3 ? map.size(0) : 1, map.size(-2), map.size(-1)};
  mask.voxels.assign(static_cast<size_t>(map.numel()), 0);
  switch (map.dtype()) {
    case DType::u8:
      mark_labels(dense.data<uint8_t>(), labels, mask.voxels);
      break;
    case DType::boolean:
      mark_labels(dense.data<bool>(), labels, mask.voxels);
      break;
    case DType::i32:
      mark_labels(dense.data<int32_t>(), labels, mask.voxels);
      break;
    case DType::i64:
      mark_labels(dense.data<int64_t>(), labels, mask.voxels);
      break;
    default:
      fail("label map", "expected integer labels, got " + map.meta().to_string());
  }
  return mask;
}

void check_same_grid(std::string_view where, const Mask& a, const Mask& b) {
  if (a.size != b.size || a.rank != b.rank)
    fail(where, "expected both masks on one grid, got " + describe(a) + " and " + describe(b));
  for (const Mask* mask : {&a, &b})
    if (mask->numel() != static_cast<int64_t>(mask->voxels.size()))
      fail(where, "a mask of " + describe(*mask) + " has " + std::to_string(mask->voxels.size()) +
                      " voxels");
}

Box bounding_box(const Mask& a, const Mask& b) {
  const Box nothing{a.size, {}};
  Box box = nothing;
  std::mutex merge;  // minimum and maximum: the order of merging does not matter
  parallel_for(a.size[0], piece_of(a.size[1] * a.size[2]), [&](int64_t begin, int64_t end) {
    Box mine = nothing;
    for (int64_t d = begin; d < end; ++d) {
      include_slice(mine, a, d);
      include_slice(mine, b, d);
    }
    const std::lock_guard lock(merge);
    if (mine.end[0] != 0) include(box, mine.begin, mine.end);
  });
  return box.end[0] == 0 ? Box{} : box;
}

Mask crop(const Mask& mask, const Box& box) {
  Mask out;
  out.rank = mask.rank;
  for (int a = 0; a < 3; ++a) out.size[a] = box.end[a] - box.begin[a];
  out.voxels.resize(static_cast<size_t>(out.numel()));
  parallel_for(out.size[0], piece_of(out.size[1] * out.size[2]), [&](int64_t begin, int64_t end) {
    for (int64_t d = begin; d < end; ++d)
      for (int64_t h = 0; h < out.size[1]; ++h) {
        const int64_t row = (box.begin[0] + d) * mask.size[1] + box.begin[1] + h;
        std::copy_n(mask.voxels.data() + row * mask.size[2] + box.begin[2], out.size[2],
                    out.voxels.data() + (d * out.size[1] + h) * out.size[2]);
      }
  });
  return out;
}

OverlapCounts count_overlap(const Mask& prediction, const Mask& reference) {
  check_same_grid("overlap", prediction, reference);
  OverlapCounts counts;
  std::mutex merge;  // integers: the order of merging does not matter
  const int64_t n = prediction.numel();
  parallel_for(n, piece_of(1), [&](int64_t begin, int64_t end) {
    int64_t both = 0, predicted = 0, expected = 0;
    for (int64_t i = begin; i < end; ++i) {
      both += prediction.voxels[i] & reference.voxels[i];
      predicted += prediction.voxels[i];
      expected += reference.voxels[i];
    }
    const std::lock_guard lock(merge);
    counts.tp += both;
    counts.fp += predicted - both;
    counts.fn += expected - both;
  });
  counts.tn = n - counts.tp - counts.fp - counts.fn;
  return counts;
}

double dice(const OverlapCounts& c) { return quotient(2 * c.tp, c.predicted() + c.reference()); }
double jaccard(const OverlapCounts& c) { return quotient(c.tp, c.tp + c.fp + c.fn); }
double precision(const OverlapCounts& c) { return quotient(c.tp, c.predicted()); }
double recall(const OverlapCounts& c) { return quotient(c.tp, c.reference()); }
double specificity(const OverlapCounts& c) { return quotient(c.tn, c.tn + c.fp); }
double accuracy(const OverlapCounts& c) { return quotient(c.tp + c.tn, c.total()); }

double volume_similarity(const OverlapCounts& c) {
  return 1 - quotient(std::abs(c.predicted() - c.reference()), c.predicted() + c.reference());
}

double relative_volume_error(const OverlapCounts& c) {
  return quotient(c.predicted() - c.reference(), c.reference());
}

}  // namespace voxlab
