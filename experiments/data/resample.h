// Resampling between grids as nnU-Net v1 does (resample_patient of
// nnunet/preprocessing/preprocessing.py with scikit-image's resize and batchgenerators 0.21),
// computed in f64.
#pragma once

#include <optional>

#include "experiments/data/volume.h"

namespace voxlab {

struct ResampleRule {
  int order = 3;  // B-spline degree: 0 nearest, 1 linear, 3 cubic
  int separate_axis =
      -1;                // 0 z, 1 y, 2 x: slices across it are resized in 2-d, then the axis itself
  int order_across = 0;  // degree along the separate axis
};

// Rounds half to even; at least 1 per axis. Error when the result would not fit in 2^31 voxels.
Size3 resampled_size(const Size3& size, const Spacing3& spacing, const Spacing3& new_spacing);

// The axis that is resampled separately, or -1: that of the largest spacing when this is more than
// three times the smallest, in the original spacing or else in the target one, and no second axis
// shares it. `force` overrides the first test only.
int separate_axis(const Spacing3& spacing, const Spacing3& new_spacing,
                  std::optional<bool> force = std::nullopt);

// image (z, y, x, C), f32 or f64. Voxel centres map by (o + 0.5) * in / out - 0.5; the border voxel
// continues outwards; cubic overshoot is clipped to the range of the channel (of the slice, in
// separate mode).
Tensor resample_image(const Tensor& image, const Size3& size, const ResampleRule& rule);

// labels (z, y, x) i32. Each label's 0/1 mask is resized by rule.order and the label written where
// the mask reaches 0.5, higher labels over lower ones, 0 where none does. Along a separate axis:
// nearest.
Tensor resample_labels(const Tensor& labels, const Size3& size, const ResampleRule& rule);

}  // namespace voxlab
