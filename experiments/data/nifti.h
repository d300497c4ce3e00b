// Reading and writing NIfTI files, .nii and .nii.gz. Why there is a reader of our own:
// docs/design/0006-nifti.md.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "experiments/data/nifti_header.h"
#include "experiments/data/volume.h"

namespace voxlab {

struct NiftiImage {
  NiftiHeader header;
  Volume volume;              // axes beyond the third become channels
  std::string affine_source;  // "sform", "qform" or "none"
  std::vector<std::string> warnings;
};

// The tensor's dtype follows the file's: u8; i32 for int8, int16, uint16, int32; i64 for uint32,
// int64; f32; f64 for float64, uint64 and for whatever has a slope and intercept (which are
// applied).
NiftiImage read_nifti(const std::filesystem::path& file);
NiftiImage read_nifti(std::span<const std::byte> bytes, const std::string& name);

// Header alone; voxels are not looked at.
NiftiHeader read_nifti_header(const std::filesystem::path& file);

// Writes under a temporary name in the same folder, then renames. The ending, .nii or .nii.gz,
// decides on compression; equal input gives equal bytes. Error when a value does not fit `type`:
// integers must be hit exactly, floats may be rounded.
void write_nifti(const std::filesystem::path& file, const Volume& volume, NiftiType type);

// Voxels (z, y, x) or (z, y, x, C) that lie on the grid of another file: its forms are copied as
// they are. Error when the size differs.
void write_nifti_like(const std::filesystem::path& file, const Tensor& voxels,
                      const NiftiHeader& grid, NiftiType type);

}  // namespace voxlab
