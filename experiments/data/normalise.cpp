// Normalisation of intensities, channel by channel.
#include "experiments/data/normalise.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

struct Moments {
  double mean = 0, sd = 0;
  int64_t count = 0;
};

// Mean, then mean of squared differences, over the values that `take` accepts.
template <class Values, class Take>
Moments moments(int64_t count, Values value, Take take) {
  Moments m;
  double sum = 0;
  for (int64_t v = 0; v < count; ++v) {
    if (!take(v)) continue;
    sum += value(v);
    ++m.count;
  }
  if (m.count == 0) return m;
  m.mean = sum / static_cast<double>(m.count);
  double squares = 0;
  for (int64_t v = 0; v < count; ++v)
    if (take(v)) squares += (value(v) - m.mean) * (value(v) - m.mean);
  m.sd = std::sqrt(squares / static_cast<double>(m.count));
  return m;
}

template <class T>
void normalise_channel(T* values, int64_t voxels, int64_t stride, const int32_t* labels,
                       const ChannelNormalisation& rule, int64_t channel) {
  const auto where = [&] { return fmt::format("normalisation of channel {}", channel); };
  const auto value = [&](int64_t v) { return static_cast<double>(values[v * stride]); };
  const auto inside = [&](int64_t v) { return !rule.inside_only || labels[v] >= 0; };
  double mean = 0, divisor = 1;
  double low = -std::numeric_limits<double>::infinity(), high = -low;
  if (rule.scheme == Normalisation::zscore) {
    const Moments m = moments(voxels, value, inside);
    mean = m.mean;
    divisor = m.sd + 1e-8;
  } else if (rule.scheme == Normalisation::fixed) {
    mean = rule.foreground.mean;
    divisor = rule.foreground.sd;
  } else {
    low = rule.foreground.percentile_00_5;
    high = rule.foreground.percentile_99_5;
    if (rule.foreground.count == 0 || !(low <= high))
      fail(where(), "needs intensity statistics of the training set's foreground");
    mean = rule.foreground.mean;
    divisor = rule.foreground.sd;
    if (rule.scheme == Normalisation::ct2) {
      const Moments m =
          moments(voxels, value, [&](int64_t v) { return value(v) > low && value(v) < high; });
      mean = m.mean;
      divisor = m.sd;
    }
  }
  if (!(divisor > 0)) fail(where(), "the intensities do not vary: standard deviation 0");
  for (int64_t v = 0; v < voxels; ++v)
    values[v * stride] =
        inside(v) ? static_cast<T>((std::clamp(value(v), low, high) - mean) / divisor) : T(0);
}

}  // namespace

double sorted_percentile(const std::vector<double>& sorted, double percent) {
  const double at = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (at - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

IntensityStats intensity_stats(std::vector<double> values) {
  IntensityStats stats;
  if (values.empty()) return stats;
  const auto all = [](int64_t) { return true; };
  const auto count = static_cast<int64_t>(values.size());
  const Moments m = moments(
      count, [&](int64_t v) { return values[size_t(v)]; }, all);
  std::sort(values.begin(), values.end());
  return {.median = sorted_percentile(values, 50),
          .mean = m.mean,
          .sd = m.sd,
          .min = values.front(),
          .max = values.back(),
          .percentile_00_5 = sorted_percentile(values, 0.5),
          .percentile_99_5 = sorted_percentile(values, 99.5),
          .count = count};
}

void normalise(Tensor& image, const Tensor& labels,
               const std::vector<ChannelNormalisation>& channels) {
  if (image.rank() != 4 || static_cast<int64_t>(channels.size()) != image.size(3))
    fail("normalisation", fmt::format("expected (z, y, x, C) with {} channels, got {}",
                                      channels.size(), image.shape().to_string()));
  const int64_t stride = image.size(3), voxels = image.numel() / stride;
  const bool inside = std::any_of(channels.begin(), channels.end(),
                                  [](const auto& each) { return each.inside_only; });
  if ((labels || inside) && (!labels || labels.numel() != voxels))
    fail("normalisation",
         "labels " + (labels ? labels.shape().to_string() : std::string("(none)")) +
             " do not fit the image " + image.shape().to_string());
  const int32_t* label = labels ? labels.data<int32_t>() : nullptr;
  for (int64_t c = 0; c < stride; ++c) {
    const ChannelNormalisation& rule = channels[size_t(c)];
    if (rule.scheme == Normalisation::none) continue;
    if (image.dtype() == DType::f64) {
      normalise_channel(image.data<double>() + c, voxels, stride, label, rule, c);
    } else {
      normalise_channel(image.data<float>() + c, voxels, stride, label, rule, c);
    }
  }
}

}  // namespace voxlab
