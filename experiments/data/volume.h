// Volume: voxels of one scan with their place in space. Knows no file format.
//
// Index order, once and for all: `voxels` is (z, y, x, C), row-major, so C runs fastest, then x.
// Voxel (z, y, x) is the file's index (i, j, k) = (x, y, z); this is SimpleITK's and nnU-Net's
// array order. Sizes and spacings stand in the order of the tensor's axes: z, y, x. Only `affine`
// takes (i, j, k).
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "runtime/core/tensor.h"

namespace voxlab {

using Size3 = std::array<int64_t, 3>;    // z, y, x
using Spacing3 = std::array<double, 3>;  // z, y, x, in millimetres
using Affine = std::array<std::array<double, 4>, 4>;

constexpr Affine identity_affine() {
  return {{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}};
}

struct Volume {
  Tensor voxels;              // (z, y, x, C)
  Spacing3 spacing{1, 1, 1};  // z, y, x
  Affine affine =
      identity_affine();  // (i, j, k, 1) -> millimetres to the right, anterior, superior

  Size3 size() const { return {voxels.size(0), voxels.size(1), voxels.size(2)}; }
  int64_t channels() const { return voxels.size(3); }
};

// Where each index axis (i, j, k) points: the world axis (0 right-left, 1 front-back, 2 up-down) it
// follows most closely, and +1 where it grows to the right, to the front or upwards.
struct AxisDirection {
  int world = 0;
  int sign = 1;
};
std::array<AxisDirection, 3> axis_directions(const Affine& affine);

// The same as letters, in the order i, j, k: "RAS", "LPS", "PIR".
std::string orientation(const Affine& affine);

// Permutes and flips axes, without resampling, until the orientation is RAS.
Volume reorient_to_ras(const Volume& volume);

double determinant3(const Affine& affine);  // of the linear part

// Error naming `where` and the first voxel that is NaN or infinite. Readers accept such files,
// training and prediction do not.
void check_finite(const Tensor& voxels, const std::string& where);

}  // namespace voxlab
