// Rules that turn a key of MONAI's state_dict into our name. Applied in order, each to the whole key.
#include <array>
#include <regex>

#include "nets/unetr/net.h"

namespace voxlab::unetr {
namespace {

struct Rule {
  const char* pattern;
  const char* replacement;
};

constexpr std::array rules{
    Rule{R"(^vit\.patch_embedding\.patch_embeddings\.1\.)", "vit.patch."},
    Rule{R"(^vit\.patch_embedding\.position_embeddings$)", "vit.position"},
    Rule{R"(^vit\.blocks\.(\d+)\.)", "vit.block$1."},
    Rule{R"(\battn\.qkv\.)", "attention.qkv."},
    Rule{R"(\battn\.out_proj\.)", "attention.out."},
    Rule{R"(\bmlp\.linear1\.)", "widen."},
    Rule{R"(\bmlp\.linear2\.)", "narrow."},
    Rule{R"(\bnorm_cross_attn\.)", "unused_norm."},
    Rule{R"(\blayer\.)", ""},
    Rule{R"(\btransp_conv_init\.conv\.)", "up."},
    Rule{R"(\bblocks\.(\d+)\.0\.conv\.)", "step$1.up."},
    Rule{R"(\bblocks\.(\d+)\.1\.)", "step$1.res."},
    Rule{R"(\btransp_conv\.conv\.)", "up."},
    Rule{R"(\bconv_block\.)", "res."},
    Rule{R"(\b(conv[123])\.conv\.)", "$1."},
    Rule{R"(^out\.conv\.conv\.)", "out."},
};

}  // namespace

std::string import_name(std::string_view official_key) {
  std::string key(official_key);
  static const auto compiled = [] {
    std::vector<std::pair<std::regex, const char*>> all;
    for (const Rule& rule : rules) all.emplace_back(std::regex(rule.pattern), rule.replacement);
    return all;
  }();
  for (const auto& [pattern, replacement] : compiled) key = std::regex_replace(key, pattern, replacement);
  return key;
}

}  // namespace voxlab::unetr
