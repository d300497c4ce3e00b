// Binary masks on a 2-d or 3-d grid, and what two of them share: bounding boxes and overlap counts.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/core/tensor.h"

namespace voxlab {

using Size3 = std::array<int64_t, 3>;
using Spacing =
    std::array<double, 3>;  // mm along the axes of the array; 2-d masks leave [0] unused

// Row-major, last axis fastest. A 2-d mask has size {1, H, W} and rank 2: its first axis has no
// neighbours, so a pixel is not surface merely because it has nothing above and below.
struct Mask {
  Size3 size{};
  int rank = 3;
  std::vector<uint8_t> voxels;  // 0 or 1

  int64_t numel() const { return size[0] * size[1] * size[2]; }
};

// All voxels whose label is in `labels`. `map` is (D, H, W) or (H, W), of u8, i32, i64 or boolean.
Mask mask_of_labels(const Tensor& map, std::span<const int64_t> labels);

// Error unless both masks lie on one grid; `where` names the caller.
void check_same_grid(std::string_view where, const Mask& a, const Mask& b);

struct Box {
  Size3 begin{};
  Size3 end{};  // one past the last; begin == end when nothing is set
  bool empty() const { return begin[0] == end[0]; }
};

// The smallest box that holds every set voxel of both masks.
Box bounding_box(const Mask& a, const Mask& b);
Mask crop(const Mask& mask, const Box& box);

struct OverlapCounts {
  int64_t tp = 0, fp = 0, fn = 0, tn = 0;

  int64_t predicted() const { return tp + fp; }
  int64_t reference() const { return tp + fn; }
  int64_t total() const { return tp + fp + fn + tn; }
};

OverlapCounts count_overlap(const Mask& prediction, const Mask& reference);

// Items a thread should take at least, when each costs about `work` simple steps.
inline int64_t piece_of(int64_t work) { return 1 + (1 << 16) / (1 + work); }

// Plain quotients of the counts, NaN for 0/0 and for x/0. What an empty mask scores is a rule's
// business (rule.h), not theirs.
double dice(const OverlapCounts& c);
double jaccard(const OverlapCounts& c);
double precision(const OverlapCounts& c);
double recall(const OverlapCounts& c);
double specificity(const OverlapCounts& c);
double accuracy(const OverlapCounts& c);
double volume_similarity(const OverlapCounts& c);      // 1 - |Vp - Vr| / (Vp + Vr)
double relative_volume_error(const OverlapCounts& c);  // (Vp - Vr) / Vr

}  // namespace voxlab
