// Rules that turn a key of the authors' state_dict into our name. Applied in order, each to the
// whole key.
#include <array>
#include <regex>

#include "nets/dae_former/net.h"

namespace voxlab::dae_former {
namespace {

struct Rule {
  const char* pattern;
  const char* replacement;
};

constexpr std::array rules{
    Rule{R"(^backbone\.patch_embed(\d+)\.)", "encoder.stage$1.embed."},
    Rule{R"(^backbone\.norm(\d+)\.)", "encoder.stage$1.norm."},
    Rule{R"(^backbone\.block(\d+)\.(\d+)\.)", "encoder.stage$1.block$2."},
    Rule{R"(^decoder_(\d+)\.layer_former_(\d+)\.)", "decoder$1.block$2."},
    // Their dual block is four norms, two attentions and two feed-forwards in a row; ours is two
    // layers.
    Rule{R"((block\d+)\.(norm[12])\.)", "$1.efficient.$2."},
    Rule{R"((block\d+)\.attn\.)", "$1.efficient.efficient_attention."},
    Rule{R"((block\d+)\.mlp1\.)", "$1.efficient.mlp."},
    Rule{R"((block\d+)\.norm3\.)", "$1.channel.norm1."},
    Rule{R"((block\d+)\.norm4\.)", "$1.channel.norm2."},
    Rule{R"((block\d+)\.channel_attn\.)", "$1.channel.channel_attention."},
    Rule{R"((block\d+)\.mlp2\.)", "$1.channel.mlp."},
    Rule{R"(^decoder_(\d+)\.)", "decoder$1."},
    Rule{R"(^(decoder\d+)\.x1_linear\.)", "$1.linear."},
    Rule{R"(^(decoder\d+)\.cross_attn\.attn\.)", "$1.cross.attention."},
    Rule{R"(^(decoder\d+)\.cross_attn\.)", "$1.cross."},
    Rule{R"(^(decoder\d+)\.layer_up\.expand\.)", "$1.expand.linear."},
    Rule{R"(^(decoder\d+)\.layer_up\.)", "$1.expand."},
    Rule{R"(^(decoder\d+)\.last_layer\.)", "$1.classes."},
    Rule{R"(\bdwconv\.dwconv\.)", "depthwise."},
};

}  // namespace

std::string import_name(std::string_view official_key) {
  std::string key(official_key);
  static const auto compiled = [] {
    std::vector<std::pair<std::regex, const char*>> all;
    all.reserve(rules.size());
    for (const Rule& rule : rules) all.emplace_back(std::regex(rule.pattern), rule.replacement);
    return all;
  }();
  for (const auto& [pattern, replacement] : compiled)
    key = std::regex_replace(key, pattern, replacement);
  return key;
}

}  // namespace voxlab::dae_former
