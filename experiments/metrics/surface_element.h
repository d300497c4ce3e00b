// The size of the piece of surface that a 2x2x2 (2x2) neighbourhood of a mask holds.
#pragma once

#include <vector>

#include "experiments/metrics/mask.h"

namespace voxlab {

// A neighbourhood's code: one bit a voxel, the first voxel in row-major order the highest.
constexpr int neighbourhood_codes(int rank) { return rank == 3 ? 256 : 16; }

// Area in mm^2 (rank 3) or length in mm (rank 2) for each code, as the surface-distance package of
// DeepMind has them: marching-cubes polygons through the edge midpoints.
std::vector<double> surface_element_sizes(int rank, const Spacing& spacing);

}  // namespace voxlab
