// Cropping to the non-zero region, as nnU-Net does (nnunet/preprocessing/cropping.py), and its
// inverse.
#pragma once

#include "experiments/data/volume.h"

namespace voxlab {

struct Box3 {
  Size3 begin{};  // z, y, x
  Size3 size{};
  bool operator==(const Box3&) const = default;
};

// Label of voxels outside the non-zero region, in label maps that are still being prepared.
constexpr int32_t outside_label = -1;

// (z, y, x) u8: 1 where any channel of image (z, y, x, C), f32 or f64, is not zero, and in holes:
// zeros that no path of face neighbours joins to the border.
Tensor nonzero_mask(const Tensor& image);

// Smallest box around the mask's ones; the whole grid when there are none.
Box3 bounding_box(const Tensor& mask);

// Copies the box out of (z, y, x) or (z, y, x, C), any dtype.
Tensor crop(const Tensor& tensor, const Box3& box);

// The inverse: a grid of `size` filled with `fill`, with `part` at box.begin. Error when it does
// not fit.
Tensor paste(const Tensor& part, const Box3& box, const Size3& size, double fill = 0);

// Labels (z, y, x) i32 of the cropped grid: background outside the mask becomes outside_label,
// other labels stay. With no labels given: outside_label outside, 0 inside.
Tensor mark_outside(const Tensor& labels, const Tensor& mask);

}  // namespace voxlab
