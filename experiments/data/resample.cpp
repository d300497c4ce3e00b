// Resampling of images, channel by channel, and of label maps.
#include "experiments/data/resample.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "experiments/data/resample_block.h"
#include "runtime/core/error.h"
#include "runtime/core/parallel.h"

namespace voxlab {
namespace {

template <class T>
Tensor resample_as(const Tensor& image, const Size3& size, const ResampleRule& rule) {
  const int64_t channels = image.size(3);
  Tensor result = Tensor::empty({size[0], size[1], size[2], channels}, image.dtype());
  const T* in = image.data<T>();
  T* out = result.data<T>();
  for (int64_t c = 0; c < channels; ++c) {
    Block block;
    std::vector<double> scratch;
    block.size = {image.size(0), image.size(1), image.size(2)};
    block.values.resize(size_t(image.numel() / channels));
    for (size_t v = 0; v < block.values.size(); ++v)
      block.values[v] = in[int64_t(v) * channels + c];
    resize_block(block, size, rule, scratch);
    scratch = {};  // before the result's pages are touched
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
