// Records of counting tools: which network a case is, and which rule stands for a tool.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "experiments/run/count.h"

namespace voxlab {

struct CountedTool {
  std::string_view key;  // in the records
  std::string_view rule;
  CountMode mode = CountMode::inference;
};
std::span<const CountedTool> counted_tools(std::string_view net);
const CountedTool* find_counted_tool(std::string_view net, std::string_view key);  // nullptr for one without a rule

// One case of a counts.json: a network at one input size with its figures.
struct CountedCase {
  std::string net;
  std::string name;
  std::optional<NetConfig> config;         // absent when the network is not built here
  const nlohmann::json* record = nullptr;  // the case's part of the record
};

// The cases lie under "cases" or at the top; a record that names no network has its folder's.
std::vector<CountedCase> counted_cases(const std::filesystem::path& file, const nlohmann::json& record);

}  // namespace voxlab
