// Rules that turn a key of MONAI's state_dict into our name. Applied in order, each to the whole key.
#include "nets/blocks/key_rules.h"
#include "nets/unetr/net.h"

namespace voxlab::unetr {
namespace {

constexpr KeyRule rules[] = {
    {R"(^vit\.patch_embedding\.patch_embeddings\.1\.)", "vit.patch."},
    {R"(^vit\.patch_embedding\.position_embeddings$)", "vit.position"},
    {R"(^vit\.blocks\.(\d+)\.)", "vit.block$1."},
    {R"(\battn\.qkv\.)", "attention.qkv."},
    {R"(\battn\.out_proj\.)", "attention.out."},
    {R"(\bmlp\.linear1\.)", "widen."},
    {R"(\bmlp\.linear2\.)", "narrow."},
    {R"(\bnorm_cross_attn\.)", "unused_norm."},
    {R"(\blayer\.)", ""},
    {R"(\btransp_conv_init\.conv\.)", "up."},
    {R"(\bblocks\.(\d+)\.0\.conv\.)", "step$1.up."},
    {R"(\bblocks\.(\d+)\.1\.)", "step$1.res."},
    {R"(\btransp_conv\.conv\.)", "up."},
    {R"(\bconv_block\.)", "res."},
    {R"(\b(conv[123])\.conv\.)", "$1."},
    {R"(^out\.conv\.conv\.)", "out."},
};

}  // namespace

std::string import_name(std::string_view official_key) {
  static const KeyRules ours(rules);
  return ours(official_key);
}

}  // namespace voxlab::unetr
