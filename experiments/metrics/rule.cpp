// The presets. Each is what the named tool or paper's script does, quirks included.
#include "experiments/metrics/rule.h"

#include "runtime/core/error.h"

namespace voxlab {
namespace {

using enum EmptyValue;

// Sets every distance rule at once.
void set_distances(Rule& rule, const EmptyRule& empty) {
  rule.hd = rule.hd95 = rule.assd = rule.asd = empty;
}

Rule strict_mm() {
  Rule r{.name = "strict-mm",
         .source =
             "voxlab: millimetres, the larger directed percentile; a missed or invented "
             "structure scores Dice 0 and the diagonal of the image, absent in both is left out"};
  r.percentile_rule = PercentileRule::max_directed;
  r.overlap = {undefined, zero, zero};
  set_distances(r, {undefined, diagonal, diagonal});
  r.surface_dice = {undefined, zero, zero};
  return r;
}

Rule medpy() {
  Rule r{.name = "medpy",
         .source =
             "medpy.metric.binary: percentile of both directions joined; it raises an error for "
             "distances to an empty mask, shown here as undefined"};
  r.overlap = {zero, zero, zero};
  r.surface_dice = {undefined, zero, zero};
  return r;
}

Rule nnunet() {
  Rule r{.name = "nnunet",
         .source =
             "nnU-Net v1 evaluation/metrics.py: medpy's distances, undefined when a mask is "
             "empty or full; Dice undefined when both are empty"};
  r.full_is_undefined = true;
  r.overlap = {undefined, zero, zero};
  r.surface_dice = {undefined, zero, zero};
  return r;
}

Rule monai() {
  Rule r{.name = "monai",
         .source =
             "MONAI metrics: the larger directed percentile; Dice undefined when the reference "
             "is empty (ignore_empty), HD95 undefined and the other distances infinite when "
             "one mask is empty"};
  r.percentile_rule = PercentileRule::max_directed;
  r.overlap = {undefined, zero, undefined};
  set_distances(r, {undefined, infinite, infinite});
  r.hd95 = {};
  r.surface_dice = {undefined, zero, zero};
  return r;
}

Rule surface_distance() {
  Rule r{.name = "surface-distance",
         .source =
             "DeepMind's surface-distance: surface elements on voxel corners weighted by area, "
             "percentile by cumulative area; Hausdorff distances infinite when a mask is empty"};
  r.surface = SurfaceKind::corner;
  r.percentile_rule = PercentileRule::max_directed_area;
  r.overlap = {undefined, zero, zero};
  set_distances(r, {infinite, infinite, infinite});
  r.assd = {undefined, infinite, infinite};
  r.asd = {undefined, undefined, infinite};
  r.surface_dice = {undefined, zero, zero};
  return r;
}

Rule brats() {
  Rule r{.name = "brats",
         .source =
             "BraTS 2021 challenge: spacing 1 mm, pooled percentile; both empty scores 1 and 0, "
             "one empty scores 0 and 373.13 (the diagonal of 240x240x155)"};
  r.spacing = SpacingRule::voxels;
  r.penalty = 373.13;
  r.overlap = {one, zero, zero};
  set_distances(r, {zero, penalty, penalty});
  r.surface_dice = {one, zero, zero};
  return r;
}

Rule brats_kaist() {
  Rule r = brats();
  r.name = "brats-kaist";
  r.source =
      "rixez/Brats21_KAIST_MRI_Lab region_based_evaluation.py: as brats, but Dice is undefined "
      "when both are empty";
  r.overlap.both = undefined;
  r.surface_dice.both = undefined;
  return r;
}

Rule transunet() {
  Rule r{.name = "transunet",
         .source =
             "TransUNet, DAE-Former and LeViT-UNet on Synapse: medpy in voxels; only the "
             "reference empty scores 1 and 0, every other empty case 0 and 0, so a missed organ "
             "has a perfect HD95"};
  r.spacing = SpacingRule::voxels;
  r.overlap = {zero, zero, one};
  set_distances(r, {zero, zero, zero});
  r.surface_dice = {zero, zero, one};
  return r;
}

Rule unetrpp_synapse() {
  Rule r{.name = "unetrpp-synapse",
         .source =
             "UNETR++ and nnFormer inference_synapse.py: medpy in voxels; Dice 1 when both are "
             "empty; HD95 0 unless both are non-empty, so a missed organ has a perfect HD95"};
  r.spacing = SpacingRule::voxels;
  r.overlap = {one, zero, zero};
  set_distances(r, {zero, zero, zero});
  r.surface_dice = {one, zero, zero};
  return r;
}

}  // namespace

const std::vector<Rule>& metric_rules() {
  static const std::vector<Rule> rules{strict_mm(),   nnunet(),           medpy(),
                                       monai(),       surface_distance(), brats(),
                                       brats_kaist(), transunet(),        unetrpp_synapse()};
  return rules;
}

const Rule& metric_rule(std::string_view name) {
  std::string known;
  for (const Rule& rule : metric_rules()) {
    if (rule.name == name) return rule;
    known += (known.empty() ? "" : ", ") + rule.name;
  }
  fail("metric rule", "'" + std::string(name) + "' is none of " + known);
}

}  // namespace voxlab
