// Rules that turn a key of the authors' state_dict into our name. Applied in order, each to the whole key.
#include "nets/blocks/key_rules.h"
#include "nets/unetr_pp/net.h"

namespace voxlab::unetr_pp {
namespace {

constexpr KeyRule rules[] = {
    {R"(^unetr_pp_encoder\.downsample_layers\.0\.0\.conv\.)", "encoder.stem.conv."},
    {R"(^unetr_pp_encoder\.downsample_layers\.0\.1\.)", "encoder.stem.norm."},
    {R"(^unetr_pp_encoder\.downsample_layers\.(\d+)\.0\.conv\.)", "encoder.down$1.conv."},
    {R"(^unetr_pp_encoder\.downsample_layers\.(\d+)\.1\.)", "encoder.down$1.norm."},
    {R"(^unetr_pp_encoder\.stages\.(\d+)\.(\d+)\.)", "encoder.stage$1.block$2."},
    {R"(^(decoder\d)\.transp_conv\.conv\.)", "$1.up."},
    {R"(^(decoder\d)\.decoder_block\.0\.(\d+)\.)", "$1.block$2."},
    {R"(^(decoder\d)\.decoder_block\.0\.)", "$1.res."},
    {R"(\bepa_block\.)", "epa."},
    {R"(\bE\.(weight|bias)$)", "project_key.$1"},
    {R"(\bF\.(weight|bias)$)", "project_value.$1"},
    {R"(\bEF$)", "project_tokens"},
    {R"(\btemperature$)", "temperature_channel"},
    {R"(\btemperature2$)", "temperature_spatial"},
    {R"(\bout_proj\.)", "out_spatial."},
    {R"(\bout_proj2\.)", "out_channel."},
    {R"(\b(conv[123])\.conv\.)", "$1."},
    {R"(\bconv8\.1\.)", "conv8."},
    {R"(^(out\d)\.conv\.conv\.)", "$1."},
};

}  // namespace

std::string import_name(std::string_view official_key) {
  if (official_key.ends_with("num_batches_tracked")) return "";
  static const KeyRules ours(rules);
  return ours(official_key);
}

}  // namespace voxlab::unetr_pp
