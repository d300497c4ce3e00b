// Rules that turn a key of the authors' state_dict into our name. Applied in order, each to the whole key.
#include <array>
#include <regex>

#include "nets/ux_net/net.h"

namespace voxlab::ux_net {
namespace {

struct Rule {
  const char* pattern;
  const char* replacement;
};

constexpr std::array rules{
    Rule{R"(^uxnet_3d\.)", "encoder."},
    Rule{R"(\bdownsample_layers\.0\.0\.)", "stem.conv."},
    Rule{R"(\bdownsample_layers\.0\.1\.)", "stem.norm."},
    Rule{R"(\bdownsample_layers\.(\d+)\.0\.)", "down$1.norm."},
    Rule{R"(\bdownsample_layers\.(\d+)\.1\.)", "down$1.conv."},
    Rule{R"(\bstages\.(\d+)\.(\d+)\.)", "stage$1.block$2."},
    Rule{R"(\bdwconv\.)", "conv."},
    Rule{R"(\bpwconv1\.)", "expand."},
    Rule{R"(\bpwconv2\.)", "reduce."},
    Rule{R"(\blayer\.)", ""},
    Rule{R"(\btransp_conv\.conv\.)", "up."},
    Rule{R"(\bconv_block\.)", "res."},
    Rule{R"(\b(conv[123])\.conv\.)", "$1."},
    Rule{R"(^out\.conv\.conv\.)", "out."},
};

}  // namespace

std::string import_name(std::string_view official_key) {
  std::string key(official_key);
  if (key.ends_with("num_batches_tracked")) return "";
  static const auto compiled = [] {
    std::vector<std::pair<std::regex, const char*>> all;
    for (const Rule& rule : rules) all.emplace_back(std::regex(rule.pattern), rule.replacement);
    return all;
  }();
  for (const auto& [pattern, replacement] : compiled) key = std::regex_replace(key, pattern, replacement);
  return key;
}

}  // namespace voxlab::ux_net
