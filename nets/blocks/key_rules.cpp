#include "nets/blocks/key_rules.h"

namespace voxlab {

KeyRules::KeyRules(std::span<const KeyRule> rules) {
  rules_.reserve(rules.size());
  for (const KeyRule& rule : rules) rules_.emplace_back(std::regex(rule.pattern), rule.replacement);
}

std::string KeyRules::operator()(std::string_view official_key) const {
  std::string key(official_key);
  for (const auto& [pattern, replacement] : rules_) key = std::regex_replace(key, pattern, replacement);
  return key;
}

}  // namespace voxlab
