// Figures of one pair of masks under a rule.
#include "experiments/metrics/score.h"

#include <algorithm>
#include <cmath>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double share_hd95 = 0.95;

using Elements = std::vector<SurfaceElement>;

double total_size(const Elements& elements) {
  double sum = 0;
  for (const SurfaceElement& e : elements) sum += e.size;
  return sum;
}

double weighted_distance(const Elements& elements) {
  double sum = 0;
  for (const SurfaceElement& e : elements) sum += e.size * e.distance;
  return sum;
}

Elements joined(const SurfaceDistances& s) {
  Elements all(s.prediction_to_reference.size() + s.reference_to_prediction.size());
  std::merge(s.prediction_to_reference.begin(), s.prediction_to_reference.end(),
             s.reference_to_prediction.begin(), s.reference_to_prediction.end(), all.begin(),
             [](const auto& a, const auto& b) { return a.distance < b.distance; });
  return all;
}

// numpy.percentile's default: linear between the two order statistics around share * (n - 1).
double linear_percentile(const Elements& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const auto above = std::min(below + 1, sorted.size() - 1);
  const double a = sorted[below].distance, b = sorted[above].distance;
  return a == b ? a : a + (b - a) * (place - static_cast<double>(below));
}

double area_percentile(const Elements& sorted, double share) {
  const double total = total_size(sorted);
  double sum = 0;
  for (const SurfaceElement& e : sorted) {
    sum += e.size;
    if (sum / total >= share) return e.distance;
  }
  return sorted.back().distance;
}

double hd95(const SurfaceDistances& s, PercentileRule rule) {
  if (rule == PercentileRule::pooled) return linear_percentile(joined(s), share_hd95);
  const auto directed = rule == PercentileRule::max_directed ? linear_percentile : area_percentile;
  return std::max(directed(s.prediction_to_reference, share_hd95),
                  directed(s.reference_to_prediction, share_hd95));
}

double surface_dice(const SurfaceDistances& s, double tolerance) {
  double near = 0;
  for (const Elements* list : {&s.prediction_to_reference, &s.reference_to_prediction})
    for (const SurfaceElement& e : *list)
      if (e.distance <= tolerance) near += e.size;
  return near / (total_size(s.prediction_to_reference) + total_size(s.reference_to_prediction));
}

double empty_value(EmptyValue value, const Measurement& m, const Rule& rule) {
  switch (value) {
    case EmptyValue::undefined:
      return Scores::undefined;
    case EmptyValue::zero:
      return 0;
    case EmptyValue::one:
      return 1;
    case EmptyValue::infinite:
      return infinity;
    case EmptyValue::penalty:
      return rule.penalty;
    case EmptyValue::diagonal:
      return m.diagonal(rule.spacing);
  }
  return Scores::undefined;
}

void score_empty(const Measurement& m, const Rule& rule, Scores& out) {
  const bool no_prediction = m.counts().predicted() == 0;
  const bool no_reference = m.counts().reference() == 0;
  const auto value = [&](const EmptyRule& empty) {
    return empty_value(no_prediction && no_reference ? empty.both
                       : no_prediction               ? empty.missed
                                                     : empty.spurious,
                       m, rule);
  };
  out.dice = out.jaccard = value(rule.overlap);
  out.surface_dice = value(rule.surface_dice);
  out.hd = value(rule.hd);
  out.hd95 = value(rule.hd95);
  out.assd = value(rule.assd);
  out.asd_pred_to_ref = value(rule.asd);
  out.asd_ref_to_pred = value({rule.asd.both, rule.asd.spurious, rule.asd.missed});
}

void score_surfaces(Measurement& m, const Rule& rule, Scores& out) {
  const SurfaceDistances& s = m.surface(rule.surface, rule.spacing);
  const Elements& forth = s.prediction_to_reference;
  const Elements& back = s.reference_to_prediction;
  const double forth_size = total_size(forth), back_size = total_size(back);
  const double forth_sum = weighted_distance(forth), back_sum = weighted_distance(back);
  out.hd = std::max(forth.back().distance, back.back().distance);
  out.hd95 = hd95(s, rule.percentile_rule);
  out.assd = (forth_sum + back_sum) / (forth_size + back_size);
  out.asd_pred_to_ref = forth_sum / forth_size;
  out.asd_ref_to_pred = back_sum / back_size;
  out.surface_dice = surface_dice(s, rule.tolerance);
}

}  // namespace

Measurement::Measurement(const Mask& prediction, const Mask& reference, const Spacing& spacing)
    : prediction_(prediction),
      reference_(reference),
      spacing_(spacing),
      counts_(count_overlap(prediction, reference)) {}

Spacing Measurement::spacing_in(SpacingRule unit) const {
  return unit == SpacingRule::voxels ? Spacing{1, 1, 1} : spacing_;
}

double Measurement::diagonal(SpacingRule unit) const {
  const Spacing spacing = spacing_in(unit);
  double sum = 0;
  for (int a = 3 - reference_.rank; a < 3; ++a) {
    const double length = spacing[a] * static_cast<double>(reference_.size[a]);
    sum += length * length;
  }
  return std::sqrt(sum);
}

const SurfaceDistances& Measurement::surface(SurfaceKind kind, SpacingRule unit) {
  const auto [place, added] = surfaces_.try_emplace({kind, unit});
  if (added) place->second = surface_distances(prediction_, reference_, spacing_in(unit), kind);
  return place->second;
}

std::pair<double, double> Measurement::surface_sizes(SurfaceKind kind, SpacingRule unit) {
  const SurfaceDistances& s = surface(kind, unit);
  return {total_size(s.prediction_to_reference), total_size(s.reference_to_prediction)};
}

Scores score(Measurement& m, const Rule& rule) {
  const OverlapCounts& c = m.counts();
  Scores out{.dice = dice(c),
             .jaccard = jaccard(c),
             .precision = precision(c),
             .recall = recall(c),
             .specificity = specificity(c),
             .accuracy = accuracy(c),
             .volume_similarity = volume_similarity(c),
             .relative_volume_error = relative_volume_error(c)};
  const bool full = c.predicted() == c.total() || c.reference() == c.total();
  if (c.predicted() == 0 || c.reference() == 0) {
    score_empty(m, rule, out);
  } else if (!(rule.full_is_undefined && full)) {
    score_surfaces(m, rule, out);
  }
  return out;
}

}  // namespace voxlab
