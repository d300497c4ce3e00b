// Scores as JSON: the rule with every setting, each case and region, and the means with their
// counts.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>

#include "experiments/metrics/score.h"

namespace voxlab {

// Undefined figures are the string "nan", infinite ones "inf" or "-inf": JSON has no number for
// them, and null would hide which it was.
nlohmann::json to_json(const Rule& rule);
nlohmann::json to_json(const CaseScores& scores);
nlohmann::json to_json(const Summary& summary);
// {"rule", "cases", "summary", "averaging"}
nlohmann::json score_report(const Rule& rule, std::span<const CaseScores> cases);
// Reads back a case written by to_json; Error when a key is missing or of another type.
CaseScores case_from_json(const nlohmann::json& record);

}  // namespace voxlab
