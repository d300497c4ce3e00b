// Rules that turn a key of the authors' state_dict into our name. Applied in order, each to the
// whole key.
#include "nets/blocks/key_rules.h"
#include "nets/dae_former/net.h"

namespace voxlab::dae_former {
namespace {

constexpr KeyRule rules[] = {
    {R"(^backbone\.patch_embed(\d+)\.)", "encoder.stage$1.embed."},
    {R"(^backbone\.norm(\d+)\.)", "encoder.stage$1.norm."},
    {R"(^backbone\.block(\d+)\.(\d+)\.)", "encoder.stage$1.block$2."},
    {R"(^decoder_(\d+)\.layer_former_(\d+)\.)", "decoder$1.block$2."},
    // Their dual block is four norms, two attentions and two feed-forwards in a row; ours is two
    // layers.
    {R"((block\d+)\.(norm[12])\.)", "$1.efficient.$2."},
    {R"((block\d+)\.attn\.)", "$1.efficient.efficient_attention."},
    {R"((block\d+)\.mlp1\.)", "$1.efficient.mlp."},
    {R"((block\d+)\.norm3\.)", "$1.channel.norm1."},
    {R"((block\d+)\.norm4\.)", "$1.channel.norm2."},
    {R"((block\d+)\.channel_attn\.)", "$1.channel.channel_attention."},
    {R"((block\d+)\.mlp2\.)", "$1.channel.mlp."},
    {R"(^decoder_(\d+)\.)", "decoder$1."},
    {R"(^(decoder\d+)\.x1_linear\.)", "$1.linear."},
    {R"(^(decoder\d+)\.cross_attn\.attn\.)", "$1.cross.attention."},
    {R"(^(decoder\d+)\.cross_attn\.)", "$1.cross."},
    {R"(^(decoder\d+)\.layer_up\.expand\.)", "$1.expand.linear."},
    {R"(^(decoder\d+)\.layer_up\.)", "$1.expand."},
    {R"(^(decoder\d+)\.last_layer\.)", "$1.classes."},
    {R"(\bdwconv\.dwconv\.)", "depthwise."},
};

}  // namespace

std::string import_name(std::string_view official_key) {
  static const KeyRules ours(rules);
  return ours(official_key);
}

}  // namespace voxlab::dae_former
