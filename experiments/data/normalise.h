// Intensity statistics and normalisation as nnU-Net v1 does (resample_and_normalize of
// nnunet/preprocessing/preprocessing.py).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/core/tensor.h"

namespace voxlab {

// zscore: (x - mean) / (sd + 1e-8) of this case. ct: clipped to the 0.5 and 99.5 percentiles of the
// training set's foreground, then by its mean and sd. ct2: clipped likewise, then by mean and sd of
// this case between the clips. fixed: (x - mean) / sd with numbers that are given. none: as it is.
enum class Normalisation : uint8_t { zscore, ct, ct2, fixed, none };
constexpr auto enum_names(Normalisation) {
  return std::array{std::pair{std::string_view("zscore"), Normalisation::zscore},
                    std::pair{std::string_view("ct"), Normalisation::ct},
                    std::pair{std::string_view("ct2"), Normalisation::ct2},
                    std::pair{std::string_view("fixed"), Normalisation::fixed},
                    std::pair{std::string_view("none"), Normalisation::none}};
}

struct IntensityStats {
  double median = 0, mean = 0, sd = 0, min = 0, max = 0;
  double percentile_00_5 = 0, percentile_99_5 = 0;
  int64_t count = 0;
};

// By linear interpolation between order statistics (numpy's default). `sorted` must not be empty.
double sorted_percentile(const std::vector<double>& sorted, double percent);

// Population sd; all zero when there are no values.
IntensityStats intensity_stats(std::vector<double> values);

// How one channel is normalised.
struct ChannelNormalisation {
  Normalisation scheme = Normalisation::zscore;
  bool inside_only = false;   // statistics from voxels inside the non-zero mask; 0 outside
  IntensityStats foreground;  // of the training set; for ct and ct2. fixed: the given mean and sd
};

// image (z, y, x, C), f32 or f64, in place; labels (z, y, x) i32, outside_label outside the mask,
// needed by channels with inside_only.
// Sums are f64, in a fixed order. Error when a scheme has nothing to divide by.
void normalise(Tensor& image, const Tensor& labels,
               const std::vector<ChannelNormalisation>& channels);

}  // namespace voxlab
