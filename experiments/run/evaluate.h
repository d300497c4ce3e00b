// Scoring of label volumes and label pictures (PNG) against references.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "experiments/data/dataset.h"
#include "experiments/metrics/score.h"

namespace voxlab {

struct LabelPair {
  std::string id;
  std::filesystem::path prediction, reference;
};

// Two files, or two folders matched by file name. Error when a reference has no prediction;
// predictions without a reference are named in `unmatched`.
std::vector<LabelPair> match_labels(const std::filesystem::path& prediction,
                                    const std::filesystem::path& reference,
                                    std::vector<std::string>& unmatched);

// One region a class, background left out.
std::vector<Region> class_regions(std::span<const LabelClass> classes);  // by class index
std::vector<Region> label_regions(std::span<const int64_t> labels);      // by value in files

// Labels other than 0 that occur in the references, by rising value.
std::vector<int64_t> labels_in(std::span<const LabelPair> pairs);

// Label maps (z, y, x) of one case. Those of a picture are scored as (y, x): in 3-d every pixel
// would be surface, with nothing above and below; and distances are in pixels.
std::vector<CaseScores> score_labels(const std::string& id, const Tensor& prediction,
                                     const Tensor& reference, const Spacing3& spacing, bool picture,
                                     std::span<const Region> regions, std::span<const Rule> rules);

// One list of cases a rule, in order. Error when a pair lies on two grids.
std::vector<std::vector<CaseScores>> evaluate(std::span<const LabelPair> pairs,
                                              std::span<const Region> regions,
                                              std::span<const Rule> rules);

}  // namespace voxlab
