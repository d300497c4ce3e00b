// The header of a NIfTI-1 or NIfTI-2 file: parsed, checked, and turned into spacing and affine.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "experiments/data/volume.h"

namespace voxlab {

class ByteSource;

// Data types that we read; the numbers are the standard's.
enum class NiftiType : int16_t {
  uint8 = 2,
  int16 = 4,
  int32 = 8,
  float32 = 16,
  float64 = 64,
  int8 = 256,
  uint16 = 512,
  uint32 = 768,
  int64 = 1024,
  uint64 = 1280,
};
std::string_view name(NiftiType type);  // "int16"
int64_t size_of(NiftiType type);

// Fields as stored, in the file's axis order i, j, k. Kept whole, so that a result written for this
// grid carries the very same numbers.
struct NiftiHeader {
  int version = 1;  // 1 or 2
  bool big_endian = false;
  NiftiType type = NiftiType::float32;
  std::vector<int64_t> shape;      // dim[1..rank]: i, j, k, then time and further axes
  std::array<double, 8> pixdim{};  // [0] is qfac, [1..3] the spacing along i, j, k
  int64_t data_offset = 352;
  double slope = 0, intercept = 0;
  int qform_code = 0, sform_code = 0;
  std::array<double, 3> quaternion{}, qoffset{};
  std::array<std::array<double, 4>, 3> srow{};
  int units = 2;  // xyzt_units; 2: millimetres

  int64_t length(size_t axis) const { return axis < shape.size() ? shape[axis] : 1; }
  Size3 size() const { return {length(2), length(1), length(0)}; }  // z, y, x
  int64_t channels() const;                                         // axes beyond the third, as one
  int64_t voxels() const { return length(0) * length(1) * length(2); }
  // Stored values stand for slope * value + intercept. Slope 0 or NaN means that they stand for
  // themselves.
  bool scaled() const;
};

// Reads up to the first data byte's offset exclusive of extensions. Error, naming the source, on
// anything that cannot be right.
NiftiHeader read_header(ByteSource& source);

// Where the grid lies. Rules, as nibabel's: the sform if its code is not 0, else the qform, else a
// grid centred on the origin with x growing to the left. A form that is announced but broken is
// passed over with a warning; Error when no announced form is sound. Spacing is pixdim, as ITK and
// nnU-Net take it.
struct NiftiGrid {
  Affine affine = identity_affine();
  Spacing3 spacing{1, 1, 1};  // z, y, x
  std::string affine_source;  // "sform", "qform" or "none"
  std::vector<std::string> warnings;
};
NiftiGrid grid_of(const NiftiHeader& header, const std::string& where);

// Sets pixdim, qform (when the affine has no shear) and sform.
void set_grid(NiftiHeader& header, const Affine& affine, const Spacing3& spacing);

}  // namespace voxlab
