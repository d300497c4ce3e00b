// Names in the authors' checkpoints, and in those of facebookresearch/LeViT from which the encoder starts.
#include "nets/blocks/key_rules.h"
#include "nets/levit_unet/net.h"

namespace voxlab::levit_unet {
namespace {

// LeViT-UNet-192 lists every transformer block under `blocks.` and under `block_1.` to `block_3.`; the
// numbers are those of the full list in both.
constexpr KeyRule rules[] = {
    {R"(^cnn_b(\d)\.0\.)", "stem.conv$1."},
    {R"(^patch_embed\.0\.)", "stem.conv1."},  // between the convolutions stand activations
    {R"(^patch_embed\.2\.)", "stem.conv2."},
    {R"(^patch_embed\.4\.)", "stem.conv3."},
    {R"(^patch_embed\.6\.)", "stem.conv4."},
    {R"(^(?:blocks|block_\d)\.(\d+)\.m\.([02])\.)", "transformer.block$1.mlp.$2."},
    {R"(^(?:blocks|block_\d)\.(\d+)\.(?:m\.)?(attention_biases$|qkv\.|kv\.|q\.|proj\.))",
         "transformer.block$1.attention.$2"},
    {R"(\bmlp\.0\.)", "mlp.expand."},
    {R"(\bmlp\.2\.)", "mlp.reduce."},
    {R"(\b(q|proj)\.1\.)", "$1."},
    {R"(^decoderBlock_(\d)\.)", "decoder$1."},
    {R"(\b(conv[12])\.0\.)", "$1."},
    {R"(\b(conv[12])\.1\.)", "$1.norm."},
    {R"(^segmentation_head\.0\.)", "head."},
    {R"(^0\.)", ""},
    {R"((^|\.)c\.weight$)", "$1weight"},
    {R"((^|\.)bn\.)", "$1norm."},
};

bool without_place(std::string_view key) {
  return key.ends_with("num_batches_tracked") || key.ends_with("attention_bias_idxs") || key.starts_with("head.") ||
         key.starts_with("head_dist.");
}

}  // namespace

std::string import_name(std::string_view official_key) {
  if (without_place(official_key)) return "";
  static const KeyRules ours(rules);
  return ours(official_key);
}

}  // namespace voxlab::levit_unet
