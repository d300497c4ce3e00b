// Separable B-spline resampling. Edge padding, prefilter and evaluation act on each axis alone, and
// operators on different axes commute: so a volume is resized by one pass of 1-d operators per
// axis.
#include "experiments/data/resample.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/core/parallel.h"

namespace voxlab {
namespace {

// scipy.ndimage pads by 12 before the spline prefilter in mode "nearest"
// (_prepad_for_spline_filter).
constexpr int64_t spline_pad = 12;
constexpr int64_t lanes = 8;  // lines that are filtered side by side

// Where an output index falls, and the weights of the four (cubic), two or one voxels around it.
struct Tap {
  int64_t first = 0;
  std::array<double, 4> weight{};
};

struct AxisMap {
  int order = 0;
  int64_t in = 0, out = 0, pad = 0;
  std::vector<Tap> taps;
  int64_t tap_count() const { return order + 1; }
};

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

struct Block {
  Size3 size{};
  std::vector<double> values;

  int64_t outer(size_t axis) const {
    return axis == 0 ? 1 : axis == 1 ? size[0] : size[0] * size[1];
  }
  int64_t inner(size_t axis) const {
    return axis == 0 ? size[1] * size[2] : axis == 1 ? size[2] : 1;
  }

  void resize(size_t axis, int64_t to, int order, std::vector<double>& scratch) {
    // On equal lengths samples fall on samples, and interpolation returns them.
    if (size[axis] == to) return;
    resize_axis(values, scratch, outer(axis), inner(axis), make_map(size[axis], to, order));
    values.swap(scratch);
    size[axis] = to;
  }
};

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
};

// Range of each slice across `axis`, or of the whole block when axis is -1.
std::vector<Range> ranges_of(const Block& block, int axis) {
  if (axis < 0) {
    const auto [low, high] = std::minmax_element(block.values.begin(), block.values.end());
    return {{*low, *high}};
  }
  const auto a = static_cast<size_t>(axis);
  std::vector<Range> ranges(static_cast<size_t>(block.size[a]));
  const int64_t inner = block.inner(a);
  size_t v = 0;
  for (int64_t o = 0; o < block.outer(a); ++o)
    for (Range& range : ranges)
      for (int64_t i = 0; i < inner; ++i, ++v) {
        range.low = std::min(range.low, block.values[v]);
        range.high = std::max(range.high, block.values[v]);
      }
  return ranges;
}

void clip(Block& block, int axis, const std::vector<Range>& ranges) {
  const int64_t inner =
      axis < 0 ? static_cast<int64_t>(block.values.size()) : block.inner(size_t(axis));
  const int64_t outer = axis < 0 ? 1 : block.outer(size_t(axis));
  size_t v = 0;
  for (int64_t o = 0; o < outer; ++o)
    for (const Range& range : ranges)
      for (int64_t i = 0; i < inner; ++i, ++v)
        block.values[v] = std::clamp(block.values[v], range.low, range.high);
}

void resize_block(Block& block, const Size3& size, const ResampleRule& rule,
                  std::vector<double>& scratch) {
  const std::vector<Range> ranges = ranges_of(block, rule.separate_axis);
  // Axes that shrink most go first: less is left to do on the others.
  std::array<size_t, 3> order{0, 1, 2};
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return size[a] * block.size[b] < size[b] * block.size[a];
  });
  for (size_t axis : order)
    if (static_cast<int>(axis) != rule.separate_axis)
      block.resize(axis, size[axis], rule.order, scratch);
  if (rule.order > 1) clip(block, rule.separate_axis, ranges);
  if (rule.separate_axis >= 0) {
    const auto axis = static_cast<size_t>(rule.separate_axis);
    block.resize(axis, size[axis], rule.order_across, scratch);
  }
}

template <class T>
Tensor resample_as(const Tensor& image, const Size3& size, const ResampleRule& rule) {
  const int64_t channels = image.size(3);
  Tensor result = Tensor::empty({size[0], size[1], size[2], channels}, image.dtype());
  const T* in = image.data<T>();
  T* out = result.data<T>();
  Block block;
  std::vector<double> scratch;
  for (int64_t c = 0; c < channels; ++c) {
    block.size = {image.size(0), image.size(1), image.size(2)};
    block.values.resize(size_t(image.numel() / channels));
    for (size_t v = 0; v < block.values.size(); ++v)
      block.values[v] = in[int64_t(v) * channels + c];
    resize_block(block, size, rule, scratch);
    for (size_t v = 0; v < block.values.size(); ++v)
      out[int64_t(v) * channels + c] = static_cast<T>(block.values[v]);
  }
  return result;
}

void check_request(const char* where, const Size3& size, const ResampleRule& rule) {
  for (size_t a = 0; a < 3; ++a)
    if (size[a] < 1) fail(where, fmt::format("target size {} along {}", size[a], "zyx"[a]));
  const auto known = [](int order) { return order == 0 || order == 1 || order == 3; };
  if (!known(rule.order) || !known(rule.order_across))
    fail(where, fmt::format("orders are 0, 1 or 3, got {} and {}", rule.order, rule.order_across));
  if (rule.separate_axis < -1 || rule.separate_axis > 2)
    fail(where, fmt::format("separate_axis is {}: expected -1 to 2", rule.separate_axis));
}

// Two indices and the weight of the second.
struct LinearTap {
  int64_t low = 0, high = 0;
  double weight = 0;
};

std::vector<LinearTap> linear_taps(int64_t in, int64_t out, bool nearest) {
  std::vector<LinearTap> taps;
  for (int64_t o = 0; o < out; ++o) {
    if (nearest) {
      const int64_t i = nearest_index(o, in, out);
      taps.push_back({i, i, 0});
      continue;
    }
    const double p = std::clamp(source_position(o, in, out), 0.0, static_cast<double>(in - 1));
    const auto i = static_cast<int64_t>(p);
    taps.push_back({i, std::min(i + 1, in - 1), p - static_cast<double>(i)});
  }
  return taps;
}

// The largest label whose corners weigh 0.5 or more, else 0: what writing one linearly resized mask
// after the other, lower labels first, leaves behind.
int32_t vote(const std::array<int32_t, 8>& label, const std::array<double, 8>& weight) {
  bool same = true;
  for (size_t i = 1; i < 8; ++i) same = same && label[i] == label[0];
  if (same) return label[0];
  int32_t winner = 0;
  bool found = false;
  for (size_t i = 0; i < 8; ++i) {
    if (found && label[i] <= winner) continue;
    double sum = 0;
    for (size_t j = 0; j < 8; ++j)
      if (label[j] == label[i]) sum += weight[j];
    if (sum >= 0.5) {
      winner = label[i];
      found = true;
    }
  }
  return winner;
}

Tensor resample_labels_linear(const Tensor& labels, const Size3& size, const ResampleRule& rule) {
  const int32_t* in = labels.data<int32_t>();
  const int64_t row = labels.size(2), plane = labels.size(1) * row;
  std::array<std::vector<LinearTap>, 3> taps;
  for (int a = 0; a < 3; ++a)
    taps[size_t(a)] =
        linear_taps(labels.size(a), size[size_t(a)], rule.order == 0 || rule.separate_axis == a);
  Tensor result = Tensor::empty({size[0], size[1], size[2]}, DType::i32);
  int32_t* out = result.data<int32_t>();
  parallel_for(size[0] * size[1], 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const LinearTap& z = taps[0][size_t(r / size[1])];
      const LinearTap& y = taps[1][size_t(r % size[1])];
      const int32_t* rows[4] = {in + z.low * plane + y.low * row, in + z.low * plane + y.high * row,
                                in + z.high * plane + y.low * row,
                                in + z.high * plane + y.high * row};
      const double rw[4] = {(1 - z.weight) * (1 - y.weight), (1 - z.weight) * y.weight,
                            z.weight * (1 - y.weight), z.weight * y.weight};
      for (int64_t i = 0; i < size[2]; ++i) {
        const LinearTap& x = taps[2][size_t(i)];
        std::array<int32_t, 8> label;
        std::array<double, 8> weight;
        for (size_t k = 0; k < 4; ++k) {
          label[2 * k] = rows[k][x.low];
          label[2 * k + 1] = rows[k][x.high];
          weight[2 * k] = rw[k] * (1 - x.weight);
          weight[2 * k + 1] = rw[k] * x.weight;
        }
        out[r * size[2] + i] = vote(label, weight);
      }
    }
  });
  return result;
}

Tensor resample_labels_cubic(const Tensor& labels, const Size3& size, const ResampleRule& rule) {
  const int32_t* in = labels.data<int32_t>();
  std::map<int32_t, int64_t> counts;
  for (int64_t v = 0; v < labels.numel(); ++v) ++counts[in[v]];
  Tensor result = Tensor::zeros({size[0], size[1], size[2]}, DType::i32);
  int32_t* out = result.data<int32_t>();
  std::vector<double> scratch;
  Block block;
  // Slices are voted on before they are repeated along the separate axis; repeating commutes with
  // that.
  const ResampleRule mask_rule{.order = 3, .separate_axis = rule.separate_axis, .order_across = 0};
  for (const auto& [label, count] : counts) {
    block.size = {labels.size(0), labels.size(1), labels.size(2)};
    block.values.resize(size_t(labels.numel()));
    for (size_t v = 0; v < block.values.size(); ++v) block.values[v] = in[v] == label ? 1 : 0;
    resize_block(block, size, mask_rule, scratch);
    for (size_t v = 0; v < block.values.size(); ++v)
      if (block.values[v] >= 0.5) out[v] = label;
  }
  return result;
}

}  // namespace

Size3 resampled_size(const Size3& size, const Spacing3& spacing, const Spacing3& new_spacing) {
  Size3 result{};
  double voxels = 1;
  for (size_t a = 0; a < 3; ++a) {
    const double length =
        std::nearbyint(spacing[a] / new_spacing[a] * static_cast<double>(size[a]));
    voxels *= std::max(length, 1.0);
    if (!(voxels < 0x1p31))
      fail("resampling",
           fmt::format("spacing {} to {} mm along {} would give {} voxels from {}: too many",
                       spacing[a], new_spacing[a], "zyx"[a], length, size[a]));
    result[a] = std::max<int64_t>(static_cast<int64_t>(length), 1);
  }
  return result;
}

int separate_axis(const Spacing3& spacing, const Spacing3& new_spacing, std::optional<bool> force) {
  constexpr double threshold = 3;
  const auto anisotropic = [](const Spacing3& s) {
    const auto [low, high] = std::minmax_element(s.begin(), s.end());
    return *high / *low > threshold;
  };
  if (force.has_value() && !*force) return -1;
  const Spacing3* decides = nullptr;
  if (force.has_value() || anisotropic(spacing)) {
    decides = &spacing;
  } else if (anisotropic(new_spacing)) {
    decides = &new_spacing;
  }
  if (decides == nullptr) return -1;
  const auto high = std::max_element(decides->begin(), decides->end());
  if (std::count(decides->begin(), decides->end(), *high) != 1) return -1;
  return static_cast<int>(high - decides->begin());
}

Tensor resample_image(const Tensor& image, const Size3& size, const ResampleRule& rule) {
  check_request("resample_image", size, rule);
  if (image.rank() != 4)
    fail("resample_image", "expected (z, y, x, C), got " + image.shape().to_string());
  if (image.size(0) == size[0] && image.size(1) == size[1] && image.size(2) == size[2])
    return image;
  const Tensor dense = image.contiguous() ? image : image.clone();
  if (dense.dtype() == DType::f64) return resample_as<double>(dense, size, rule);
  return resample_as<float>(dense, size, rule);
}

Tensor resample_labels(const Tensor& labels, const Size3& size, const ResampleRule& rule) {
  check_request("resample_labels", size, rule);
  if (labels.rank() != 3)
    fail("resample_labels", "expected (z, y, x), got " + labels.shape().to_string());
  if (labels.size(0) == size[0] && labels.size(1) == size[1] && labels.size(2) == size[2])
    return labels;
  const Tensor dense = labels.contiguous() ? labels : labels.clone();
  return rule.order == 3 ? resample_labels_cubic(dense, size, rule)
                         : resample_labels_linear(dense, size, rule);
}

}  // namespace voxlab
