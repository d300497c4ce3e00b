// Exact Euclidean distances on a grid with spacing.
#pragma once

#include <span>
#include <vector>

#include "experiments/metrics/mask.h"

namespace voxlab {

// For every set element of `queries`, in row-major order, the distance to the nearest set element
// of `sites`; infinity when there is none. Both lie on a grid of `size`. Exact in double precision:
// d^2 = (dz^2 + dy^2) + dx^2, each term spacing times an integer.
// Time O(voxels + queries * row length), for surfaces O(voxels). Memory 2 bytes a voxel and one
// plane a thread. Error when axis 0 is longer than 65534.
std::vector<double> nearest_distances(const Size3& size, const Spacing& spacing,
                                      std::span<const uint8_t> queries,
                                      std::span<const uint8_t> sites);

}  // namespace voxlab
