// Tile positions and importance maps, exactly as nnU-Net and MONAI compute them.
#include "experiments/inference/tiles.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

void check_sizes(int64_t image, int64_t patch) {
  if (patch < 1 || image < patch)
    fail("sliding window", "expected 1 <= patch <= image, got patch " + std::to_string(patch) +
                               " and image " + std::to_string(image));
}

// scipy.ndimage.gaussian_filter of a unit impulse at n / 2, zeros outside, truncated at 4 sigma.
// The filter's normalisation cancels, because the map is divided by its maximum.
std::vector<double> nnunet_axis(int64_t n) {
  const double sigma = static_cast<double>(n) / 8;
  const auto radius = static_cast<int64_t>(4 * sigma + 0.5);
  std::vector<double> weights(static_cast<size_t>(n), 0.0);
  for (int64_t i = 0; i < n; ++i) {
    const auto x = static_cast<double>(i - n / 2);
    if (std::abs(i - n / 2) <= radius) weights[i] = std::exp(-0.5 * x * x / (sigma * sigma));
  }
  return weights;
}

std::vector<float> monai_axis(int64_t n) {
  const double sigma = 0.125 * static_cast<double>(n);
  const auto divisor = static_cast<float>(-2 * sigma * sigma);
  std::vector<float> weights(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    const float x = static_cast<float>(i) - static_cast<float>(n - 1) / 2.0f;
    weights[i] = std::exp(x * x / divisor);
  }
  return weights;
}

// The outer product of one vector an axis, multiplied from the first axis on.
template <class T>
std::vector<T> outer_product(std::span<const int64_t> patch, std::vector<T> (*axis)(int64_t)) {
  std::vector<T> map{1};
  for (int64_t n : patch) {
    if (n < 1) fail("importance map", "expected a positive patch, got " + std::to_string(n));
    const std::vector<T> line = axis(n);
    std::vector<T> next;
    next.reserve(map.size() * line.size());
    for (T a : map)
      for (T b : line) next.push_back(a * b);
    map = std::move(next);
  }
  return map;
}

std::vector<float> nnunet_importance(std::span<const int64_t> patch) {
  const std::vector<double> exact = outer_product(patch, nnunet_axis);
  std::vector<float> map(exact.begin(), exact.end());
  float smallest = 1;
  for (float v : map)
    if (v > 0) smallest = std::min(smallest, v);
  // A weight of zero would divide by zero where only one window reaches.
  std::replace(map.begin(), map.end(), 0.0f, smallest);
  return map;
}

std::vector<float> monai_importance(std::span<const int64_t> patch) {
  std::vector<float> map = outer_product(patch, monai_axis);
  const float floor = std::max(*std::min_element(map.begin(), map.end()), 1e-3f);
  for (float& v : map) v = std::max(v, floor);
  return map;
}

}  // namespace

std::vector<int64_t> nnunet_tile_starts(int64_t image, int64_t patch, double step) {
  check_sizes(image, patch);
  if (!(step > 0 && step <= 1))
    fail("sliding window", "expected 0 < step <= 1, got " + std::to_string(step));
  const auto room = static_cast<double>(image - patch);
  const double count = std::ceil(room / (static_cast<double>(patch) * step)) + 1;
  const double distance = count > 1 ? room / (count - 1) : 0;
  std::vector<int64_t> starts;
  for (double i = 0; i < count; ++i)
    starts.push_back(static_cast<int64_t>(std::nearbyint(distance * i)));
  return starts;
}

std::vector<int64_t> monai_tile_starts(int64_t image, int64_t patch, double overlap) {
  check_sizes(image, patch);
  if (!(overlap >= 0 && overlap < 1))
    fail("sliding window", "expected 0 <= overlap < 1, got " + std::to_string(overlap));
  const auto stride =
      patch == image
          ? patch
          : std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(patch) * (1 - overlap)));
  std::vector<int64_t> starts;
  for (int64_t at = 0;; at += stride) {
    starts.push_back(std::min(at, image - patch));
    if (at + patch >= image) return starts;
  }
}

std::vector<float> gaussian_importance(TileStyle style, std::span<const int64_t> patch) {
  return style == TileStyle::nnunet ? nnunet_importance(patch) : monai_importance(patch);
}

}  // namespace voxlab
