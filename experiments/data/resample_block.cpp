// Separable B-spline resampling. Edge padding, prefilter and evaluation act on each axis alone, and
// operators on different axes commute: so a volume is resized by one pass of 1-d operators per
// axis.
#include "experiments/data/resample_block.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/core/parallel.h"

namespace voxlab {
namespace {

// scipy.ndimage pads by 12 before the spline prefilter in mode "nearest"
// (_prepad_for_spline_filter).
constexpr int64_t spline_pad = 12;
constexpr int64_t lanes = 8;  // lines that are filtered side by side

// Cubic B-spline coefficients of `lanes` lines of n samples, in place; mirrored at both ends.
// Unser, "Splines: a perfect fit", IEEE Signal Processing Magazine 1999, box 2; scipy's
// ni_splines.c.
void prefilter(double* line, int64_t n) {
  const double pole = std::sqrt(3.0) - 2;
  const double last_power = std::pow(pole, static_cast<double>(n - 1));
  for (int64_t i = 0; i < n * lanes; ++i) line[i] *= 6;  // (1 - pole) * (1 - 1 / pole)
  for (int64_t k = 0; k < lanes; ++k) {
    double sum = line[k] + last_power * line[(n - 1) * lanes + k];
    double power = pole;
    for (int64_t i = 1; i < n - 1 && std::abs(power) > 1e-18; ++i, power *= pole)
      sum += power * (line[i * lanes + k] + last_power * line[(n - 1 - i) * lanes + k]);
    line[k] = sum / (1 - last_power * last_power);
  }
  for (int64_t i = 1; i < n; ++i)
    for (int64_t k = 0; k < lanes; ++k) line[i * lanes + k] += pole * line[(i - 1) * lanes + k];
  double* end = line + (n - 1) * lanes;
  for (int64_t k = 0; k < lanes; ++k)
    end[k] = (pole * end[k - lanes] + end[k]) * pole / (pole * pole - 1);
  for (int64_t i = n - 2; i >= 0; --i)
    for (int64_t k = 0; k < lanes; ++k)
      line[i * lanes + k] = pole * (line[(i + 1) * lanes + k] - line[i * lanes + k]);
}

// One axis of a (outer, in, inner) block -> (outer, out, inner).
void resize_axis(const std::vector<double>& from, std::vector<double>& to, int64_t outer,
                 int64_t inner, const AxisMap& map) {
  to.resize(static_cast<size_t>(outer * map.out * inner));
  const int64_t lines = outer * inner, padded = map.in + 2 * map.pad;
  const int64_t groups = (lines + lanes - 1) / lanes;
  parallel_for(groups, 64, [&](int64_t begin, int64_t end) {
    std::vector<double> line(static_cast<size_t>(padded * lanes));
    for (int64_t g = begin; g < end; ++g) {
      std::array<int64_t, lanes> source, target;
      const int64_t used = std::min(lanes, lines - g * lanes);
      for (int64_t k = 0; k < lanes; ++k) {
        const int64_t l = g * lanes + std::min(k, used - 1);  // a short group repeats its last line
        source[size_t(k)] = l / inner * map.in * inner + l % inner;
        target[size_t(k)] = l / inner * map.out * inner + l % inner;
      }
      for (int64_t i = 0; i < padded; ++i) {
        const int64_t at = std::clamp<int64_t>(i - map.pad, 0, map.in - 1) * inner;
        for (size_t k = 0; k < lanes; ++k)
          line[size_t(i * lanes) + k] = from[size_t(source[k] + at)];
      }
      if (map.order == 3) prefilter(line.data(), padded);
      for (int64_t o = 0; o < map.out; ++o) {
        const Tap& tap = map.taps[size_t(o)];
        std::array<double, lanes> sum{};
        for (int64_t t = 0; t < std::min(map.tap_count(), padded); ++t)
          for (size_t k = 0; k < lanes; ++k)
            sum[k] += tap.weight[size_t(t)] * line[size_t((tap.first + t) * lanes) + k];
        for (int64_t k = 0; k < used; ++k)
          to[size_t(target[size_t(k)] + o * inner)] = sum[size_t(k)];
      }
    }
  });
}

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
};

// Calls visit(range, value) for each value: a range for each channel, and for each slice across
// `axis` unless this is -1.
template <class Visit>
void with_ranges(Block& block, int axis, std::vector<Range>& ranges, Visit visit) {
  const auto a = static_cast<size_t>(std::max(axis, 0));
  const int64_t slices = axis < 0 ? 1 : block.size[a], channels = block.channels;
  const int64_t outer = axis < 0 ? 1 : block.outer(a);
  const auto inner = static_cast<int64_t>(block.values.size()) / (outer * slices * channels);
  ranges.resize(static_cast<size_t>(slices * channels));
  double* value = block.values.data();
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t s = 0; s < slices; ++s)
      for (int64_t i = 0; i < inner; ++i)
        for (int64_t c = 0; c < channels; ++c) visit(ranges[size_t(s * channels + c)], *value++);
}

}  // namespace

double source_position(int64_t o, int64_t in, int64_t out) {
  const double zoom = static_cast<double>(in) / static_cast<double>(out);
  return (static_cast<double>(o) + 0.5) * zoom - 0.5;
}

int64_t nearest_index(int64_t o, int64_t in, int64_t out) {
  const auto i = static_cast<int64_t>(std::floor(source_position(o, in, out) + 0.5));
  return std::clamp<int64_t>(i, 0, in - 1);
}

AxisMap make_map(int64_t in, int64_t out, int order) {
  AxisMap map{.order = order, .in = in, .out = out, .pad = order == 3 ? spline_pad : 0, .taps = {}};
  for (int64_t o = 0; o < out; ++o) {
    Tap tap;
    if (order == 0) {
      tap = {.first = nearest_index(o, in, out), .weight = {1}};
    } else if (order == 1) {
      const double p = std::clamp(source_position(o, in, out), 0.0, static_cast<double>(in - 1));
      // The last voxel is reached as the upper tap, so that both taps lie inside; one voxel has no
      // pair.
      tap.first = std::clamp<int64_t>(static_cast<int64_t>(p), 0, std::max<int64_t>(in - 2, 0));
      const double t = in == 1 ? 0 : p - static_cast<double>(tap.first);
      tap.weight = {1 - t, t};
    } else {
      const double p = source_position(o, in, out) + static_cast<double>(spline_pad);
      const double floor = std::floor(p), t = p - floor, u = 1 - t;
      tap.first = static_cast<int64_t>(floor) - 1;
      tap.weight[0] = u * u * u / 6;
      tap.weight[1] = (t * t * (t - 2) * 3 + 4) / 6;
      tap.weight[2] = (u * u * (u - 2) * 3 + 4) / 6;
      tap.weight[3] = 1 - tap.weight[0] - tap.weight[1] - tap.weight[2];
    }
    map.taps.push_back(tap);
  }
  return map;
}

void Block::resize(size_t axis, int64_t to, int order, std::vector<double>& scratch) {
  // On equal lengths samples fall on samples, and interpolation returns them.
  if (size[axis] == to) return;
  resize_axis(values, scratch, outer(axis), inner(axis), make_map(size[axis], to, order));
  values.swap(scratch);
  size[axis] = to;
}

void resize_block(Block& block, const Size3& size, const ResampleRule& rule,
                  std::vector<double>& scratch) {
  std::vector<Range> ranges;
  if (rule.order > 1)
    with_ranges(block, rule.separate_axis, ranges, [](Range& range, double value) {
      range.low = std::min(range.low, value);
      range.high = std::max(range.high, value);
    });
  // Axes that shrink most go first: less is left to do on the others.
  std::array<size_t, 3> order{0, 1, 2};
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return size[a] * block.size[b] < size[b] * block.size[a];
  });
  for (size_t axis : order)
    if (static_cast<int>(axis) != rule.separate_axis)
      block.resize(axis, size[axis], rule.order, scratch);
  if (rule.order > 1)
    with_ranges(block, rule.separate_axis, ranges, [](const Range& range, double& value) {
      value = std::clamp(value, range.low, range.high);
    });
  if (rule.separate_axis >= 0) {
    const auto axis = static_cast<size_t>(rule.separate_axis);
    block.resize(axis, size[axis], rule.order_across, scratch);
  }
}

}  // namespace voxlab
