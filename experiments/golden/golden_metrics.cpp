// Mask pairs scored by medpy, MONAI, surface-distance and the papers' scripts, and surface areas.
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "experiments/golden/golden.h"
#include "experiments/metrics/score.h"
#include "experiments/metrics/surface_element.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

using Json = nlohmann::json;

constexpr double limit_f64 = 1e-10;   // figures are printed with twelve digits
constexpr double limit_monai = 2e-6;  // MONAI computes distances and percentiles in float32

// The tools' and conventions' names in the records, and our rule for each.
constexpr std::array<std::pair<std::string_view, std::string_view>, 8> rule_of_name{{
    {"medpy", "medpy"},
    {"nnunet_metrics", "nnunet"},
    {"monai", "monai"},
    {"deepmind_surface_distance", "surface-distance"},
    {"brats2021_challenge", "brats"},
    {"brats21_repository", "brats-kaist"},
    {"transunet_daeformer", "transunet"},
    {"unetr_plus_plus_synapse", "unetrpp-synapse"},
}};

const Rule* find_rule(std::string_view name) {
  for (const auto& [theirs, ours] : rule_of_name)
    if (theirs == name) return &metric_rule(ours);
  return nullptr;
}

Mask decode_mask(const Json& record, const Json& runs) {
  const auto shape = record.at("shape").get<std::vector<int64_t>>();
  if (shape.size() != 2 && shape.size() != 3) fail("mask", "expected 2 or 3 axes");
  Mask mask;
  mask.rank = static_cast<int>(shape.size());
  mask.size = {1, 1, 1};
  std::copy(shape.begin(), shape.end(), mask.size.end() - mask.rank);
  const int64_t voxels = Shape(std::span<const int64_t>(shape)).numel();
  uint8_t value = 0;
  for (const auto run : runs.at("runs").get<std::vector<int64_t>>()) {
    const auto filled = static_cast<int64_t>(mask.voxels.size());
    if (run < 0 || run > voxels - filled) fail("mask", "runs exceed the shape");
    mask.voxels.resize(static_cast<size_t>(filled + run), value);
    value = !value;
  }
  if (static_cast<int64_t>(mask.voxels.size()) != voxels)
    fail("mask", "runs do not fill the shape");
  return mask;
}

// Numbers are numbers, "nan" or "inf"; a tool that raised an error gave no figure.
double expected_figure(const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (value == "inf") return std::numeric_limits<double>::infinity();
  if (value == "nan" || (value.is_string() && value.get<std::string>().starts_with("error")))
    return Scores::undefined;
  fail("figure", "expected a number, got " + value.dump());
}

double relative_error(double got, double expected) {
  if (std::isnan(expected) || std::isnan(got))
    return std::isnan(expected) == std::isnan(got) ? 0 : Scores::undefined;
  if (got == expected) return 0;
  return std::abs(got - expected) / std::max(std::abs(expected), 1e-12);
}

// "surface_dice_2", "surface_dice_0.5_subvoxel": the tolerance, and the surface it is taken on.
std::optional<double> surface_dice_figure(Measurement& measurement, Rule rule,
                                          std::string_view name) {
  constexpr std::string_view prefix = "surface_dice_", suffix = "_subvoxel";
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  if (name.ends_with(suffix)) {
    rule.surface = SurfaceKind::corner;
    name.remove_suffix(suffix.size());
  }
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), rule.tolerance);
  if (error != std::errc{} || end != name.data() + name.size()) return std::nullopt;
  return score(measurement, rule).surface_dice;
}

std::optional<double> figure(Measurement& measurement, const Rule& rule, std::string_view name) {
  if (name == "area_pred") return measurement.surface_sizes(rule.surface, rule.spacing).first;
  if (name == "area_ref") return measurement.surface_sizes(rule.surface, rule.spacing).second;
  if (const auto value = surface_dice_figure(measurement, rule, name)) return value;
  std::optional<double> found;
  const Scores scores = score(measurement, rule);
  Scores::visit(scores, [&](std::string_view each, const double& value) {
    if (each == name) found = value;
  });
  return found;
}

// One row for all figures of one tool, showing the worst.
void compare_tool(GoldenReport& report, const std::string& title, Measurement& measurement,
                  const std::string& tool, const Json& figures) {
  const Rule* rule = find_rule(tool);
  if (!rule) return report.add(title, Scores::undefined, 0, "no rule reproduces this tool");
  double worst = 0;
  std::string note = std::to_string(figures.size()) + " figures";
  for (const auto& [name, value] : figures.items()) {
    const double expected = expected_figure(value);
    const std::optional<double> got = figure(measurement, *rule, name);
    const double error = got ? relative_error(*got, expected) : Scores::undefined;
    if (std::isnan(worst) || error <= worst) continue;
    worst = error;
    note = "worst " + name + ": expected " + value.dump() + ", got " +
           (got ? std::to_string(*got) : std::string("no such figure"));
  }
  report.add(title, worst, tool == "monai" ? limit_monai : limit_f64, note);
}

void compare_overlap(GoldenReport& report, const OverlapCounts& c, const Json& overlap) {
  const std::map<std::string, double> ours{{"tp", static_cast<double>(c.tp)},
                                           {"fp", static_cast<double>(c.fp)},
                                           {"fn", static_cast<double>(c.fn)},
                                           {"tn", static_cast<double>(c.tn)},
                                           {"dice", dice(c)},
                                           {"jaccard", jaccard(c)},
                                           {"precision", precision(c)},
                                           {"recall", recall(c)},
                                           {"specificity", specificity(c)},
                                           {"accuracy", accuracy(c)},
                                           {"volume_similarity", volume_similarity(c)},
                                           {"relative_volume_error", relative_volume_error(c)}};
  for (const auto& [name, value] : overlap.items()) {
    if (name == "convention") continue;
    const auto found = ours.find(name);
    const double error = found == ours.end()
                             ? Scores::undefined
                             : relative_error(found->second, expected_figure(value));
    report.add("overlap " + name, error, limit_f64);
  }
}

void compare_masks(GoldenReport& report, const Json& record) {
  const Mask prediction = decode_mask(record, record.at("prediction"));
  const Mask reference = decode_mask(record, record.at("reference"));
  Measurement voxels(prediction, reference, {1, 1, 1});
  compare_overlap(report, voxels.counts(), record.at("overlap"));
  for (const auto& [name, figures] : record.at("conventions").items())
    compare_tool(report, "convention " + name, voxels, name, figures);
  for (const Json& entry : record.at("surface")) {
    const auto axes = entry.at("spacing").get<std::vector<double>>();
    if (static_cast<int>(axes.size()) != prediction.rank) fail("spacing", "expected one an axis");
    Spacing spacing{1, 1, 1};
    std::copy(axes.begin(), axes.end(), spacing.end() - prediction.rank);
    Measurement measurement(prediction, reference, spacing);
    for (const auto& [name, figures] : entry.items())
      if (name != "spacing")
        compare_tool(report, name + " at " + entry.at("spacing").dump(), measurement, name,
                     figures);
  }
}

void compare_areas(GoldenReport& report, const Json& record) {
  for (const Json& entry : record.at("areas")) {
    const auto axes = entry.at("spacing").get<std::vector<double>>();
    const auto areas = entry.at("area").get<std::vector<double>>();
    if (axes.size() != 2 && axes.size() != 3) fail("spacing", "expected 2 or 3 axes");
    Spacing spacing{1, 1, 1};
    std::copy(axes.begin(), axes.end(), spacing.end() - static_cast<int64_t>(axes.size()));
    const auto ours = surface_element_sizes(static_cast<int>(axes.size()), spacing);
    double worst = ours.size() == areas.size() ? 0 : Scores::undefined;
    for (size_t i = 0; i < std::min(ours.size(), areas.size()); ++i)
      worst = std::max(worst, relative_error(ours[i], areas[i]));
    report.add("areas at " + entry.at("spacing").dump(), worst, limit_f64);
  }
}

}  // namespace

GoldenReport golden_metrics(const std::filesystem::path& file, const nlohmann::json& record,
                            const GoldenOptions&) {
  GoldenReport report;
  report.file = file.string();
  report.kind = "metrics";
  if (record.contains("areas")) {
    compare_areas(report, record);
  } else {
    compare_masks(report, record);
  }
  return report;
}

}  // namespace voxlab
