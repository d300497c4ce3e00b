// ConfigNode -> TOML text, JSON, and the content id that names a run.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "experiments/config/node.h"

namespace voxlab {

// Reading the text gives the same values back; reals keep all their digits.
std::string to_toml(const ConfigNode& table);
std::string to_toml_value(const ConfigNode& node);  // one value, on one line

// Reals that JSON cannot hold become the texts "nan", "inf" and "-inf".
nlohmann::json to_json(const ConfigNode& node);

// 16 hexadecimal digits of the SHA-256 of the resolved text: the same configuration, the same id,
// on every machine.
std::string content_id(const ConfigNode& resolved);

}  // namespace voxlab
