// Rules that turn a key of the authors' state_dict into our name. Applied in order, each to the whole key.
#include <array>
#include <regex>

#include "nets/unetr_pp/net.h"

namespace voxlab::unetr_pp {
namespace {

struct Rule {
  const char* pattern;
  const char* replacement;
};

constexpr std::array rules{
    Rule{R"(^unetr_pp_encoder\.downsample_layers\.0\.0\.conv\.)", "encoder.stem.conv."},
    Rule{R"(^unetr_pp_encoder\.downsample_layers\.0\.1\.)", "encoder.stem.norm."},
    Rule{R"(^unetr_pp_encoder\.downsample_layers\.(\d+)\.0\.conv\.)", "encoder.down$1.conv."},
    Rule{R"(^unetr_pp_encoder\.downsample_layers\.(\d+)\.1\.)", "encoder.down$1.norm."},
    Rule{R"(^unetr_pp_encoder\.stages\.(\d+)\.(\d+)\.)", "encoder.stage$1.block$2."},
    Rule{R"(^(decoder\d)\.transp_conv\.conv\.)", "$1.up."},
    Rule{R"(^(decoder\d)\.decoder_block\.0\.(\d+)\.)", "$1.block$2."},
    Rule{R"(^(decoder\d)\.decoder_block\.0\.)", "$1.res."},
    Rule{R"(\bepa_block\.)", "epa."},
    Rule{R"(\bE\.(weight|bias)$)", "project_key.$1"},
    Rule{R"(\bF\.(weight|bias)$)", "project_value.$1"},
    Rule{R"(\bEF$)", "project_tokens"},
    Rule{R"(\btemperature$)", "temperature_channel"},
    Rule{R"(\btemperature2$)", "temperature_spatial"},
    Rule{R"(\bout_proj\.)", "out_spatial."},
    Rule{R"(\bout_proj2\.)", "out_channel."},
    Rule{R"(\b(conv[123])\.conv\.)", "$1."},
    Rule{R"(\bconv8\.1\.)", "conv8."},
    Rule{R"(^(out\d)\.conv\.conv\.)", "$1."},
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

}  // namespace voxlab::unetr_pp
