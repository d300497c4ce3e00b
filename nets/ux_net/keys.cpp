// Rules that turn a key of the authors' state_dict into our name. Applied in order, each to the whole key.
#include "nets/blocks/key_rules.h"
#include "nets/ux_net/net.h"

namespace voxlab::ux_net {
namespace {

constexpr KeyRule rules[] = {
    {R"(^uxnet_3d\.)", "encoder."},
    {R"(\bdownsample_layers\.0\.0\.)", "stem.conv."},
    {R"(\bdownsample_layers\.0\.1\.)", "stem.norm."},
    {R"(\bdownsample_layers\.(\d+)\.0\.)", "down$1.norm."},
    {R"(\bdownsample_layers\.(\d+)\.1\.)", "down$1.conv."},
    {R"(\bstages\.(\d+)\.(\d+)\.)", "stage$1.block$2."},
    {R"(\bdwconv\.)", "conv."},
    {R"(\bpwconv1\.)", "expand."},
    {R"(\bpwconv2\.)", "reduce."},
    {R"(\blayer\.)", ""},
    {R"(\btransp_conv\.conv\.)", "up."},
    {R"(\bconv_block\.)", "res."},
    {R"(\b(conv[123])\.conv\.)", "$1."},
    {R"(^out\.conv\.conv\.)", "out."},
};

}  // namespace

std::string import_name(std::string_view official_key) {
  if (official_key.ends_with("num_batches_tracked")) return "";
  static const KeyRules ours(rules);
  return ours(official_key);
}

}  // namespace voxlab::ux_net
