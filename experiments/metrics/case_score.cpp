// Scores of a case's structures under several rules, and means over cases.
#include <algorithm>
#include <cmath>

#include "experiments/metrics/score.h"
#include "runtime/core/error.h"

namespace voxlab {

std::vector<Region> brats_regions() { return {{"WT", {1, 2, 4}}, {"TC", {1, 4}}, {"ET", {4}}}; }

std::vector<CaseScores> score_case(const std::string& id, const Tensor& prediction,
                                   const Tensor& reference, std::span<const double> spacing,
                                   std::span<const Region> regions, std::span<const Rule> rules) {
  const std::string where = "case " + id;
  if (!prediction || !reference || prediction.shape() != reference.shape())
    fail(where, "expected prediction and reference of one shape, got " +
                    (prediction ? prediction.shape().to_string() : std::string("nothing")) +
                    " and " + (reference ? reference.shape().to_string() : std::string("nothing")));
  if (static_cast<int>(spacing.size()) != reference.rank())
    fail(where, "expected a spacing for each of " + std::to_string(reference.rank()) +
                    " axes, got " + std::to_string(spacing.size()));
  Spacing three{1, 1, 1};
  std::copy(spacing.begin(), spacing.end(), three.end() - reference.rank());

  std::vector<CaseScores> out(rules.size(), {id, {spacing.begin(), spacing.end()}, {}});
  for (const Region& region : regions) {
    const Mask predicted = mask_of_labels(prediction, region.labels);
    const Mask expected = mask_of_labels(reference, region.labels);
    Measurement measurement(predicted, expected, three);
    for (size_t r = 0; r < rules.size(); ++r)
      out[r].regions.push_back({region.name, measurement.counts(), score(measurement, rules[r])});
  }
  return out;
}

Mean mean_of(std::span<const double> values) {
  Mean out;
  out.total = static_cast<int64_t>(values.size());
  std::vector<double> used;
  for (double v : values)
    if (!std::isnan(v)) used.push_back(v);
  out.used = static_cast<int64_t>(used.size());
  out.infinite = std::count_if(used.begin(), used.end(), [](double v) { return std::isinf(v); });
  if (used.empty()) return out;
  const auto n = static_cast<double>(used.size());
  double sum = 0;
  for (double v : used) sum += v;
  out.mean = sum / n;
  if (used.size() > 1 && out.infinite == 0) {
    double squares = 0;
    for (double v : used) squares += (v - out.mean) * (v - out.mean);
    out.deviation = std::sqrt(squares / (n - 1));
  }
  std::sort(used.begin(), used.end());
  const double low = used[(used.size() - 1) / 2], high = used[used.size() / 2];
  out.median = low == high ? low : 0.5 * (low + high);
  out.minimum = used.front();
  out.maximum = used.back();
  return out;
}

Summary summarise(std::span<const CaseScores> cases) {
  Summary out;
  std::map<std::string, std::vector<double>> means;
  if (cases.empty()) return out;
  for (size_t r = 0; r < cases.front().regions.size(); ++r) {
    RegionSummary& summary = out.regions.emplace_back();
    summary.region = cases.front().regions[r].region;
    std::map<std::string, std::vector<double>> values;
    for (const CaseScores& each : cases) {
      if (each.regions.size() != cases.front().regions.size() ||
          each.regions[r].region != summary.region)
        fail("case " + each.id, "expected the regions of case " + cases.front().id);
      Scores::visit(each.regions[r].scores, [&](std::string_view name, const double& value) {
        values[std::string(name)].push_back(value);
      });
    }
    for (const auto& [name, list] : values) {
      summary.figures[name] = mean_of(list);
      means[name].push_back(summary.figures[name].mean);
    }
  }
  for (const auto& [name, list] : means) out.over_regions[name] = mean_of(list);
  return out;
}

}  // namespace voxlab
