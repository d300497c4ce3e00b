// Networks whose channels are regions that may overlap (BraTS: whole tumour, tumour core, enhancing
// tumour) instead of exclusive classes: `train.loss.output = "regions"` with the classes of each in
// `train.loss.regions`.
#pragma once

#include <span>
#include <vector>

#include "experiments/data/dataset.h"
#include "experiments/metrics/score.h"

namespace voxlab {

using RegionList =
    std::vector<std::vector<int64_t>>;  // class indices (0 is the background), not values in files

// The class that each region writes into a label map, later regions over earlier ones: the one
// class of it that no later region has. [[1, 2, 3], [2, 3], [3]] gives 1, 2, 3, as nnU-Net's BraTS
// trainer. Error when there is not exactly one, or when a class is no foreground.
std::vector<uint8_t> region_classes(const RegionList& regions);

// What is scored: the regions, named after their classes ("edema + core"), or every class but the
// background when `regions` is empty. Error for a class that is not there.
std::vector<Region> scored_regions(std::span<const LabelClass> classes, const RegionList& regions);

}  // namespace voxlab
