// Separable exact distance transform: a scan along axis 0, lower envelopes of parabolas along axis
// 1 (Felzenszwalb and Huttenlocher, Distance Transforms of Sampled Functions, 2012), and along axis
// 2 a search from each query.
#include "experiments/metrics/distance.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "runtime/core/error.h"
#include "runtime/core/parallel.h"

namespace voxlab {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr uint16_t no_site = 65535;

// Steps along axis 0 to the nearest site in the same column, for every voxel. Axis 0 is done first
// because it is the strided one: here it moves whole rows, and nothing later needs it again.
std::vector<uint16_t> steps_along_axis0(const Size3& size, std::span<const uint8_t> sites) {
  const int64_t depth = size[0], height = size[1], width = size[2], plane = height * width;
  std::vector<uint16_t> steps(static_cast<size_t>(depth * plane));
  const auto next = [](uint16_t v) { return static_cast<uint16_t>(v + (v != no_site)); };
  parallel_for(height, piece_of(2 * depth * width), [&](int64_t begin, int64_t end) {
    const int64_t low = begin * width, high = end * width;
    for (int64_t i = low; i < high; ++i) steps[i] = sites[i] ? 0 : no_site;
    for (int64_t d = 1; d < depth; ++d) {
      uint16_t* here = steps.data() + d * plane;
      const uint16_t* before = here - plane;
      const uint8_t* site = sites.data() + d * plane;
      for (int64_t i = low; i < high; ++i) here[i] = site[i] ? 0 : next(before[i]);
    }
    for (int64_t d = depth - 2; d >= 0; --d) {
      uint16_t* here = steps.data() + d * plane;
      const uint16_t* after = here + plane;
      for (int64_t i = low; i < high; ++i) here[i] = std::min(here[i], next(after[i]));
    }
  });
  return steps;
}

// The lower envelope of f(v) + (scale (q - v))^2 over the finite f(v).
class Envelope {
 public:
  explicit Envelope(int64_t longest) : vertex_(longest), height_(longest), from_(longest) {}

  void build(const double* f, int64_t n, double scale) {
    scale_ = scale;
    count_ = 0;
    const double half = 0.5 / (scale * scale);
    for (int64_t q = 0; q < n; ++q) {
      if (f[q] == infinity) continue;
      double start = -infinity;
      while (count_ > 0) {
        const auto v = static_cast<double>(vertex_[count_ - 1]);
        const auto x = static_cast<double>(q);
        // Where the parabola of q becomes the lower one; the sum is split to keep its precision.
        start = 0.5 * (x + v) + half * (f[q] - height_[count_ - 1]) / (x - v);
        if (start > from_[count_ - 1]) break;
        --count_;
        start = -infinity;
      }
      vertex_[count_] = q;
      height_[count_] = f[q];
      from_[count_] = start;
      ++count_;
    }
  }

  bool empty() const { return count_ == 0; }

  // `at` must not decrease from call to call; `piece` is the caller's place, 0 at first.
  double value(int64_t at, int64_t& piece) const {
    while (piece + 1 < count_ && from_[piece + 1] < static_cast<double>(at)) ++piece;
    const double step = scale_ * static_cast<double>(at - vertex_[piece]);
    return height_[piece] + step * step;
  }

 private:
  std::vector<int64_t> vertex_;
  std::vector<double> height_;
  std::vector<double> from_;
  int64_t count_ = 0;
  double scale_ = 1;
};

// Columns are handled eight at a time: a row of eight doubles is one cache line.
constexpr int64_t block = 8;

struct PlaneScratch {
  PlaneScratch(int64_t height, int64_t width)
      : envelope(height), columns(block * height), squared(height * width) {}
  Envelope envelope;
  std::vector<double> columns;
  std::vector<double> squared;  // distances over axes 0 and 1, squared
};

void squared_in_columns(const Size3& size, const Spacing& spacing, const uint16_t* steps,
                        PlaneScratch& scratch) {
  const int64_t height = size[1], width = size[2];
  for (int64_t first = 0; first < width; first += block) {
    const int64_t count = std::min(block, width - first);
    for (int64_t h = 0; h < height; ++h)
      for (int64_t i = 0; i < count; ++i) {
        const uint16_t s = steps[h * width + first + i];
        const double distance = spacing[0] * s;
        scratch.columns[i * height + h] = s == no_site ? infinity : distance * distance;
      }
    for (int64_t i = 0; i < count; ++i) {
      double* column = scratch.columns.data() + i * height;
      scratch.envelope.build(column, height, spacing[1]);
      if (scratch.envelope.empty()) continue;  // stays infinite
      int64_t piece = 0;
      for (int64_t h = 0; h < height; ++h) column[h] = scratch.envelope.value(h, piece);
    }
    for (int64_t h = 0; h < height; ++h)
      for (int64_t i = 0; i < count; ++i)
        scratch.squared[h * width + first + i] = scratch.columns[i * height + h];
  }
}

// min over v of f(v) + (scale (at - v))^2, searched outwards until no farther v can win. Queries
// are surfaces, few in a row and near their sites: cheaper than the envelope of the whole row.
double nearest_in_row(const double* f, int64_t n, double scale, int64_t at) {
  double best = f[at];
  for (int64_t step = 1; step < n; ++step) {
    const double distance = scale * static_cast<double>(step);
    const double square = distance * distance;
    if (square >= best) break;
    if (at >= step) best = std::min(best, f[at - step] + square);
    if (at + step < n) best = std::min(best, f[at + step] + square);
  }
  return best;
}

// Distances of one plane's queries, given the steps along axis 0.
void finish_plane(const Size3& size, const Spacing& spacing, const uint16_t* steps,
                  const uint8_t* queries, PlaneScratch& scratch, double* out) {
  squared_in_columns(size, spacing, steps, scratch);
  const int64_t width = size[2];
  for (int64_t i = 0; i < size[1] * width; ++i)
    if (queries[i]) {
      const double* row = scratch.squared.data() + i / width * width;
      *out++ = std::sqrt(nearest_in_row(row, width, spacing[2], i % width));
    }
}

}  // namespace

std::vector<double> nearest_distances(const Size3& size, const Spacing& spacing,
                                      std::span<const uint8_t> queries,
                                      std::span<const uint8_t> sites) {
  if (size[0] >= no_site)
    fail("distance", "expected at most 65534 slices, got " + std::to_string(size[0]));
  const int64_t plane = size[1] * size[2];
  std::vector<int64_t> first(size[0] + 1, 0);  // each plane's first place in the result
  parallel_for(size[0], piece_of(plane), [&](int64_t begin, int64_t end) {
    for (int64_t d = begin; d < end; ++d)
      first[d + 1] = std::count(queries.begin() + d * plane, queries.begin() + (d + 1) * plane, 1);
  });
  for (int64_t d = 0; d < size[0]; ++d) first[d + 1] += first[d];
  std::vector<double> distances(static_cast<size_t>(first.back()), infinity);
  if (distances.empty() || std::find(sites.begin(), sites.end(), 1) == sites.end())
    return distances;

  const std::vector<uint16_t> steps = steps_along_axis0(size, sites);
  parallel_for(size[0], piece_of(8 * plane), [&](int64_t begin, int64_t end) {
    PlaneScratch scratch(size[1], size[2]);
    for (int64_t d = begin; d < end; ++d)
      if (first[d + 1] > first[d])
        finish_plane(size, spacing, steps.data() + d * plane, queries.data() + d * plane, scratch,
                     distances.data() + first[d]);
  });
  return distances;
}

}  // namespace voxlab
