// Rules that turn a key of the authors' state_dict into our name. Applied in order, each to the whole key.
#include <array>
#include <regex>

#include "nets/brats_unet/net.h"

namespace voxlab::brats_unet {
namespace {

struct Rule {
  const char* pattern;
  const char* replacement;
};

constexpr std::array rules{
    // In the bottleneck and in the decoder each of the two convolutions is a list of one.
    Rule{R"(^conv_blocks_context\.(\d+)\.blocks\.0\.)", "encoder.level$1.unit1."},
    Rule{R"(^conv_blocks_context\.(\d+)\.blocks\.1\.)", "encoder.level$1.unit2."},
    Rule{R"(^conv_blocks_context\.(\d+)\.0\.blocks\.0\.)", "encoder.level$1.unit1."},
    Rule{R"(^conv_blocks_context\.(\d+)\.1\.blocks\.0\.)", "encoder.level$1.unit2."},
    Rule{R"(^conv_blocks_localization\.(\d+)\.0\.blocks\.0\.)", "decoder.step$1.unit1."},
    Rule{R"(^conv_blocks_localization\.(\d+)\.1\.blocks\.0\.)", "decoder.step$1.unit2."},
    Rule{R"(\.instnorm\.)", ".norm."},
    Rule{R"(^tu\.(\d+)\.)", "decoder.step$1.up."},
    Rule{R"(^seg_outputs\.(\d+)\.)", "decoder.step$1.head."},
    // axial-attention 0.5.0 says params.0, 0.6.1 param_0.
    Rule{R"(^axial_embedding\.(\d+)\.(?:params\.|param_)0$)", "decoder.step$1.axial.position_depth"},
    Rule{R"(^axial_embedding\.(\d+)\.(?:params\.|param_)1$)", "decoder.step$1.axial.position_height"},
    Rule{R"(^axial_embedding\.(\d+)\.(?:params\.|param_)2$)", "decoder.step$1.axial.position_width"},
    Rule{R"(^axial_attention\.(\d+)\.axial_attentions\.0\.fn\.)", "decoder.step$1.axial.depth."},
    Rule{R"(^axial_attention\.(\d+)\.axial_attentions\.1\.fn\.)", "decoder.step$1.axial.height."},
    Rule{R"(^axial_attention\.(\d+)\.axial_attentions\.2\.fn\.)", "decoder.step$1.axial.width."},
    Rule{R"(\.to_q\.)", ".query."},
    Rule{R"(\.to_kv\.)", ".key_value."},
    Rule{R"(\.to_out\.)", ".out."},
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

}  // namespace voxlab::brats_unet
