// Names in the authors' checkpoints, and in those of facebookresearch/LeViT from which the encoder starts.
#include <array>
#include <regex>

#include "nets/levit_unet/net.h"

namespace voxlab::levit_unet {
namespace {

struct Rule {
  const char* pattern;
  const char* replacement;
};

// LeViT-UNet-192 lists every transformer block under `blocks.` and under `block_1.` to `block_3.`; the
// numbers are those of the full list in both.
constexpr std::array rules{
    Rule{R"(^cnn_b(\d)\.0\.)", "stem.conv$1."},
    Rule{R"(^patch_embed\.0\.)", "stem.conv1."},  // between the convolutions stand activations
    Rule{R"(^patch_embed\.2\.)", "stem.conv2."},
    Rule{R"(^patch_embed\.4\.)", "stem.conv3."},
    Rule{R"(^patch_embed\.6\.)", "stem.conv4."},
    Rule{R"(^(?:blocks|block_\d)\.(\d+)\.m\.([02])\.)", "transformer.block$1.mlp.$2."},
    Rule{R"(^(?:blocks|block_\d)\.(\d+)\.(?:m\.)?(attention_biases$|qkv\.|kv\.|q\.|proj\.))",
         "transformer.block$1.attention.$2"},
    Rule{R"(\bmlp\.0\.)", "mlp.expand."},
    Rule{R"(\bmlp\.2\.)", "mlp.reduce."},
    Rule{R"(\b(q|proj)\.1\.)", "$1."},
    Rule{R"(^decoderBlock_(\d)\.)", "decoder$1."},
    Rule{R"(\b(conv[12])\.0\.)", "$1."},
    Rule{R"(\b(conv[12])\.1\.)", "$1.norm."},
    Rule{R"(^segmentation_head\.0\.)", "head."},
    Rule{R"(^0\.)", ""},
    Rule{R"((^|\.)c\.weight$)", "$1weight"},
    Rule{R"((^|\.)bn\.)", "$1norm."},
};

bool without_place(std::string_view key) {
  return key.ends_with("num_batches_tracked") || key.ends_with("attention_bias_idxs") || key.starts_with("head.") ||
         key.starts_with("head_dist.");
}

}  // namespace

std::string import_name(std::string_view official_key) {
  if (without_place(official_key)) return "";
  std::string key(official_key);
  static const auto compiled = [] {
    std::vector<std::pair<std::regex, const char*>> all;
    for (const Rule& rule : rules) all.emplace_back(std::regex(rule.pattern), rule.replacement);
    return all;
  }();
  for (const auto& [pattern, replacement] : compiled) key = std::regex_replace(key, pattern, replacement);
  return key;
}

}  // namespace voxlab::levit_unet
