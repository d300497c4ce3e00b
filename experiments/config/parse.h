// TOML files -> ConfigNode. A file may name another one that it extends.
#pragma once

#include <filesystem>
#include <string_view>

#include "experiments/config/node.h"

namespace voxlab {

// Reads a file and, when it has `extends = "other.toml"` (relative to it), lays it over that one.
// The key itself is gone afterwards. Errors begin with file:line:column.
ConfigNode load_config(const std::filesystem::path& path);

// The same for a text without a file; `extends` is then relative to the working directory.
ConfigNode parse_config(std::string_view text, std::string_view name);

// "train.rate=0.01" from a command line. The value is TOML; a bare word is taken as text.
void apply_override(ConfigNode& config, std::string_view assignment);

}  // namespace voxlab
