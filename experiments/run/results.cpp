#include "experiments/run/results.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "experiments/config/bind.h"
#include "experiments/config/emit.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

double number(const nlohmann::json& json, const std::string& where) {
  if (json.is_number()) return json.get<double>();
  if (json == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (json == "inf") return std::numeric_limits<double>::infinity();
  if (json == "-inf") return -std::numeric_limits<double>::infinity();
  fail(where, "expected a number");
}

Figure figure_from_json(const nlohmann::json& json, const std::string& where) {
  if (!json.is_object() || !json.contains("value") || !json.contains("kind"))
    fail(where, "expected an object with 'value' and 'kind'");
  Figure figure;
  try {
    figure.value = number(json.at("value"), where + ".value");
    figure.kind = parse_enum<FigureKind>(json.at("kind").get<std::string>(), where + ".kind");
    figure.unit = json.value("unit", "");
    figure.source = json.value("source", "");
    figure.n = json.value("n", int64_t{1});
    if (json.contains("spread")) figure.spread = number(json.at("spread"), where + ".spread");
  } catch (const nlohmann::json::exception& error) {
    fail(where, error.what());
  }
  return figure;
}

}  // namespace

nlohmann::json to_json(const Results& results) { return to_json(to_node(results)); }

Results results_from_json(const nlohmann::json& json, std::string_view where) {
  if (!json.is_object()) fail(where, "expected an object of figures");
  Results results;
  for (const auto& [name, figure] : json.items())
    results[name] = figure_from_json(figure, std::string(where) + ": " + name);
  return results;
}

}  // namespace voxlab
