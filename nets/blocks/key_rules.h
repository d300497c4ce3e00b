// Names in the authors' checkpoints -> ours, by a table of regular expressions.
#pragma once

#include <regex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace voxlab {

struct KeyRule {
  const char* pattern;
  const char* replacement;
};

// Applied in order, each to the whole key.
class KeyRules {
 public:
  explicit KeyRules(std::span<const KeyRule> rules);
  std::string operator()(std::string_view official_key) const;

 private:
  std::vector<std::pair<std::regex, const char*>> rules_;
};

}  // namespace voxlab
