// Rules that turn a key of the authors' state_dict into our name. Applied in order, each to the whole key.
#include "nets/blocks/key_rules.h"
#include "nets/brats_unet/net.h"

namespace voxlab::brats_unet {
namespace {

constexpr KeyRule rules[] = {
    // In the bottleneck and in the decoder each of the two convolutions is a list of one.
    {R"(^conv_blocks_context\.(\d+)\.blocks\.0\.)", "encoder.level$1.unit1."},
    {R"(^conv_blocks_context\.(\d+)\.blocks\.1\.)", "encoder.level$1.unit2."},
    {R"(^conv_blocks_context\.(\d+)\.0\.blocks\.0\.)", "encoder.level$1.unit1."},
    {R"(^conv_blocks_context\.(\d+)\.1\.blocks\.0\.)", "encoder.level$1.unit2."},
    {R"(^conv_blocks_localization\.(\d+)\.0\.blocks\.0\.)", "decoder.step$1.unit1."},
    {R"(^conv_blocks_localization\.(\d+)\.1\.blocks\.0\.)", "decoder.step$1.unit2."},
    {R"(\.instnorm\.)", ".norm."},
    {R"(^tu\.(\d+)\.)", "decoder.step$1.up."},
    {R"(^seg_outputs\.(\d+)\.)", "decoder.step$1.head."},
    // axial-attention 0.5.0 says params.0, 0.6.1 param_0.
    {R"(^axial_embedding\.(\d+)\.(?:params\.|param_)0$)", "decoder.step$1.axial.position_depth"},
    {R"(^axial_embedding\.(\d+)\.(?:params\.|param_)1$)", "decoder.step$1.axial.position_height"},
    {R"(^axial_embedding\.(\d+)\.(?:params\.|param_)2$)", "decoder.step$1.axial.position_width"},
    {R"(^axial_attention\.(\d+)\.axial_attentions\.0\.fn\.)", "decoder.step$1.axial.depth."},
    {R"(^axial_attention\.(\d+)\.axial_attentions\.1\.fn\.)", "decoder.step$1.axial.height."},
    {R"(^axial_attention\.(\d+)\.axial_attentions\.2\.fn\.)", "decoder.step$1.axial.width."},
    {R"(\.to_q\.)", ".query."},
    {R"(\.to_kv\.)", ".key_value."},
    {R"(\.to_out\.)", ".out."},
};

}  // namespace

std::string import_name(std::string_view official_key) {
  if (official_key.ends_with("num_batches_tracked")) return "";
  static const KeyRules ours(rules);
  return ours(official_key);
}

}  // namespace voxlab::brats_unet
