// Scores to JSON and back.
#include "experiments/metrics/score_json.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "runtime/core/visit.h"

namespace voxlab {
namespace {

using Json = nlohmann::json;

Json number(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}

double read_number(const Json& value, const std::string& key) {
  if (value.is_number()) return value.get<double>();
  if (value == "nan") return Scores::undefined;
  if (value == "inf") return std::numeric_limits<double>::infinity();
  if (value == "-inf") return -std::numeric_limits<double>::infinity();
  fail("scores", "'" + key + "' is no number: " + value.dump());
}

struct Writer {
  Json& out;
  template <class T>
  void operator()(std::string_view name, const T& value) const {
    Json& place = out[std::string(name)];
    if constexpr (NamedEnum<T>) {
      place = std::string(to_string(value));
    } else if constexpr (std::is_same_v<T, double>) {
      place = number(value);
    } else if constexpr (Visitable<T>) {
      place = Json::object();
      T::visit(value, Writer{place});
    } else {
      place = value;
    }
  }
};

Json to_json(const Mean& mean) {
  return {{"mean", number(mean.mean)},     {"std", number(mean.deviation)},
          {"median", number(mean.median)}, {"min", number(mean.minimum)},
          {"max", number(mean.maximum)},   {"n_used", mean.used},
          {"n_total", mean.total},         {"n_infinite", mean.infinite}};
}

Json to_json(const std::map<std::string, Mean>& figures) {
  Json out = Json::object();
  for (const auto& [name, mean] : figures) out[name] = to_json(mean);
  return out;
}

}  // namespace

Json to_json(const Rule& rule) {
  Json out = Json::object();
  Rule::visit(rule, Writer{out});
  return out;
}

Json to_json(const CaseScores& scores) {
  Json regions = Json::object();
  for (const RegionScores& region : scores.regions) {
    Json figures = Json::object();
    Scores::visit(region.scores, Writer{figures});
    const OverlapCounts& c = region.counts;
    figures["voxels"] = {{"tp", c.tp}, {"fp", c.fp}, {"fn", c.fn}, {"tn", c.tn}};
    regions[region.region] = std::move(figures);
  }
  Json order = Json::array();
  for (const RegionScores& region : scores.regions) order.push_back(region.region);
  return {{"case", scores.id}, {"spacing", scores.spacing}, {"order", order}, {"regions", regions}};
}

Json to_json(const Summary& summary) {
  Json regions = Json::object();
  for (const RegionSummary& region : summary.regions)
    regions[region.region] = to_json(region.figures);
  return {{"regions", regions}, {"over_regions", to_json(summary.over_regions)}};
}

Json score_report(const Rule& rule, std::span<const CaseScores> cases) {
  Json list = Json::array();
  for (const CaseScores& each : cases) list.push_back(to_json(each));
  return {
      {"rule", to_json(rule)},
      {"averaging",
       "per region the mean over cases, nan left out, inf kept; then over regions, nan left out"},
      {"summary", to_json(summarise(cases))},
      {"cases", list}};
}

CaseScores case_from_json(const Json& record) {
  try {
    CaseScores out{
        record.at("case").get<std::string>(), record.at("spacing").get<std::vector<double>>(), {}};
    for (const Json& name : record.at("order")) {
      RegionScores region{name.get<std::string>(), {}, {}};
      const Json& figures = record.at("regions").at(region.region);
      Scores::visit(region.scores, [&](std::string_view key, double& value) {
        value = read_number(figures.at(std::string(key)), std::string(key));
      });
      const Json& voxels = figures.at("voxels");
      region.counts = {voxels.at("tp"), voxels.at("fp"), voxels.at("fn"), voxels.at("tn")};
      out.regions.push_back(std::move(region));
    }
    return out;
  } catch (const Json::exception& e) {
    fail("scores", e.what());
  }
}

}  // namespace voxlab
