// A rule turns a measurement into figures: surface, percentile, spacing, and what empty masks
// score. "HD95" alone says nothing: on the same masks the rules below differ by hundreds of
// millimetres.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "experiments/metrics/surface.h"

namespace voxlab {

// How HD95 takes the 95th percentile from the two directed lists of distances.
enum class PercentileRule {
  pooled,            // linear interpolation in both lists joined (medpy)
  max_directed,      // linear interpolation in each list, the larger of the two (MONAI)
  max_directed_area  // first distance at which the area so far reaches the share, the larger of the
                     // two, no interpolation (DeepMind)
};
constexpr auto enum_names(PercentileRule) {
  using enum PercentileRule;
  return std::array{std::pair{std::string_view("pooled"), pooled},
                    std::pair{std::string_view("max_directed"), max_directed},
                    std::pair{std::string_view("max_directed_area"), max_directed_area}};
}

enum class SpacingRule { voxels, millimetres };
constexpr auto enum_names(SpacingRule) {
  return std::array{std::pair{std::string_view("voxels"), SpacingRule::voxels},
                    std::pair{std::string_view("millimetres"), SpacingRule::millimetres}};
}

// What a figure is worth when a mask is empty.
enum class EmptyValue {
  undefined,  // NaN: left out of means, and counted as left out
  zero,
  one,
  infinite,
  penalty,   // the rule's `penalty`
  diagonal,  // the diagonal of the whole grid, in the rule's unit: no distance can be larger
};
constexpr auto enum_names(EmptyValue) {
  using enum EmptyValue;
  return std::array{std::pair{std::string_view("undefined"), undefined},
                    std::pair{std::string_view("zero"), zero},
                    std::pair{std::string_view("one"), one},
                    std::pair{std::string_view("infinite"), infinite},
                    std::pair{std::string_view("penalty"), penalty},
                    std::pair{std::string_view("diagonal"), diagonal}};
}

struct EmptyRule {
  EmptyValue both = EmptyValue::undefined;
  EmptyValue missed = EmptyValue::undefined;    // only the prediction is empty
  EmptyValue spurious = EmptyValue::undefined;  // only the reference is empty

  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("both", s.both);
    v("missed", s.missed);
    v("spurious", s.spurious);
  }
};

struct Rule {
  std::string name;
  std::string source;  // whose rule it is, and what is particular about it
  SurfaceKind surface = SurfaceKind::voxel;
  PercentileRule percentile_rule = PercentileRule::pooled;
  SpacingRule spacing = SpacingRule::millimetres;
  double tolerance = 1;  // of surface Dice, in the unit of the distances
  double penalty = 0;
  bool full_is_undefined = false;  // nnU-Net: no surface distance when a mask fills its grid
  EmptyRule overlap{};             // Dice and Jaccard
  EmptyRule hd{};
  EmptyRule hd95{};
  EmptyRule assd{};
  EmptyRule asd{};  // prediction to reference; the other direction swaps missed and spurious
  EmptyRule surface_dice{};

  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("name", s.name);
    v("source", s.source);
    v("surface", s.surface);
    v("percentile_rule", s.percentile_rule);
    v("spacing", s.spacing);
    v("tolerance", s.tolerance);
    v("penalty", s.penalty);
    v("full_is_undefined", s.full_is_undefined);
    v("overlap", s.overlap);
    v("hd", s.hd);
    v("hd95", s.hd95);
    v("assd", s.assd);
    v("asd", s.asd);
    v("surface_dice", s.surface_dice);
  }
};

// All presets, `strict-mm` first.
const std::vector<Rule>& metric_rules();
// Error with the known names when there is no such rule.
const Rule& metric_rule(std::string_view name);

}  // namespace voxlab
