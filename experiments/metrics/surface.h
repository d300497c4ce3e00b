// Distances between the surfaces of two masks: what is measured, before any rule for scoring.
#pragma once

#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "experiments/metrics/mask.h"

namespace voxlab {

// What the surface consists of.
//   voxel   mask voxels with a face neighbour outside of the mask; outside of the grid counts as
//           background (medpy, MONAI). Every element has size 1.
//   corner  corners of voxels whose 2x2x2 neighbourhood is mixed, weighted by the surface area they
//           carry (DeepMind's surface-distance, MONAI with use_subvoxels). A pixel mask has 2x2
//           neighbourhoods and lengths.
enum class SurfaceKind { voxel, corner };
constexpr auto enum_names(SurfaceKind) {
  return std::array{std::pair{std::string_view("voxel"), SurfaceKind::voxel},
                    std::pair{std::string_view("corner"), SurfaceKind::corner}};
}

struct SurfaceElement {
  double distance = 0;  // to the other mask's surface; infinity when that mask is empty
  double size = 1;
};

struct SurfaceDistances {
  SurfaceKind kind = SurfaceKind::voxel;
  // Each list sorted by distance, then size; empty when its mask is.
  std::vector<SurfaceElement> prediction_to_reference;
  std::vector<SurfaceElement> reference_to_prediction;
};

// Spacing in mm, or {1, 1, 1} for distances in voxels. Error unless the masks share a grid and the
// spacing is positive.
SurfaceDistances surface_distances(const Mask& prediction, const Mask& reference,
                                   const Spacing& spacing, SurfaceKind kind);

}  // namespace voxlab
