// Where the windows of a sliding-window prediction lie, and how much each of their voxels counts.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace voxlab {

// Whose rules place the windows and weigh them.
enum class TileStyle { nnunet, monai };
constexpr auto enum_names(TileStyle) {
  return std::array{std::pair{std::string_view("nnunet"), TileStyle::nnunet},
                    std::pair{std::string_view("monai"), TileStyle::monai}};
}

// First voxels of the windows along one axis; `image` is at least `patch` (pad first).
// nnU-Net (_compute_steps_for_sliding_window): as few windows as keep the distance at most
// step * patch, spread evenly from end to end, rounded half to even. Error unless 0.001 <= step
// <= 1.
std::vector<int64_t> nnunet_tile_starts(int64_t image, int64_t patch, double step);
// MONAI (dense_patch_slices): one every int(patch * (1 - overlap)) voxels, the last pulled back to
// the end. Error unless 0 <= overlap < 1.
std::vector<int64_t> monai_tile_starts(int64_t image, int64_t patch, double overlap);

// Gaussian weights of a patch, row-major, in f32 as both tools hold them; sigma = patch / 8.
// nnU-Net: centred on voxel patch / 2 (not symmetric for even sizes), cut off at 4 sigma,
// maximum 1. MONAI: symmetric, at least 1e-3.
std::vector<float> gaussian_importance(TileStyle style, std::span<const int64_t> patch);

}  // namespace voxlab
