// Scores of one pair of masks, of the structures of one case, and means over cases.
#pragma once

#include <limits>
#include <map>
#include <string>
#include <vector>

#include "experiments/metrics/rule.h"

namespace voxlab {

// NaN: undefined under the rule. precision to relative_volume_error are plain quotients in every
// rule.
struct Scores {
  static constexpr double undefined = std::numeric_limits<double>::quiet_NaN();
  double dice = undefined;
  double jaccard = undefined;
  double precision = undefined;
  double recall = undefined;
  double specificity = undefined;
  double accuracy = undefined;
  double volume_similarity = undefined;
  double relative_volume_error = undefined;
  double hd = undefined;
  double hd95 = undefined;
  double assd = undefined;  // mean of both directed lists joined
  double asd_pred_to_ref = undefined;
  double asd_ref_to_pred = undefined;
  double surface_dice = undefined;

  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("dice", s.dice);
    v("jaccard", s.jaccard);
    v("precision", s.precision);
    v("recall", s.recall);
    v("specificity", s.specificity);
    v("accuracy", s.accuracy);
    v("volume_similarity", s.volume_similarity);
    v("relative_volume_error", s.relative_volume_error);
    v("hd", s.hd);
    v("hd95", s.hd95);
    v("assd", s.assd);
    v("asd_pred_to_ref", s.asd_pred_to_ref);
    v("asd_ref_to_pred", s.asd_ref_to_pred);
    v("surface_dice", s.surface_dice);
  }
};

// All that the rules need to know about two masks; costly parts are computed once and shared.
class Measurement {
 public:
  // The masks must outlive the measurement.
  Measurement(const Mask& prediction, const Mask& reference, const Spacing& spacing);

  const OverlapCounts& counts() const { return counts_; }
  double diagonal(SpacingRule unit) const;  // of the whole grid
  const SurfaceDistances& surface(SurfaceKind kind, SpacingRule unit);
  // Total surface in mm^2 (pixels: length in mm) of {prediction, reference}.
  std::pair<double, double> surface_sizes(SurfaceKind kind, SpacingRule unit);

 private:
  Spacing spacing_in(SpacingRule unit) const;
  const Mask& prediction_;
  const Mask& reference_;
  Spacing spacing_;
  OverlapCounts counts_;
  std::map<std::pair<SurfaceKind, SpacingRule>, SurfaceDistances> surfaces_;
};

Scores score(Measurement& measurement, const Rule& rule);

// A structure that is scored as one: a label, or a union of labels such as BraTS' whole tumour.
struct Region {
  std::string name;
  std::vector<int64_t> labels;
};
std::vector<Region> brats_regions();  // WT {1, 2, 4}, TC {1, 4}, ET {4}

struct RegionScores {
  std::string region;
  OverlapCounts counts;
  Scores scores;
};

struct CaseScores {
  std::string id;
  std::vector<double> spacing;
  std::vector<RegionScores> regions;
};

// One CaseScores a rule, in order. Label maps are (D, H, W) or (H, W); spacing has one entry an
// axis.
std::vector<CaseScores> score_case(const std::string& id, const Tensor& prediction,
                                   const Tensor& reference, std::span<const double> spacing,
                                   std::span<const Region> regions, std::span<const Rule> rules);

// A mean that says what went into it. NaNs are left out, infinities are kept: one makes the mean
// infinite.
struct Mean {
  double mean = Scores::undefined;
  double deviation = Scores::undefined;  // sample standard deviation (n - 1)
  double median = Scores::undefined;
  double minimum = Scores::undefined;
  double maximum = Scores::undefined;
  int64_t used = 0;
  int64_t total = 0;
  int64_t infinite = 0;  // among the used
};
Mean mean_of(std::span<const double> values);

struct RegionSummary {
  std::string region;
  std::map<std::string, Mean> figures;  // by the names of Scores::visit
};

// nnU-Net's order (its summary.json): per region the mean over cases without NaN, then the mean of
// those over regions without NaN. With a structure that is absent in some case this differs from
// the mean over all pairs.
struct Summary {
  std::vector<RegionSummary> regions;
  std::map<std::string, Mean> over_regions;  // Mean::total counts regions
};
Summary summarise(std::span<const CaseScores> cases);

}  // namespace voxlab
