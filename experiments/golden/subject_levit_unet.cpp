// LeViT-UNet and its blocks from the records' keys.
#include <nlohmann/json.hpp>

#include "experiments/golden/subject.h"
#include "nets/levit_unet/net.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

using nlohmann::json;

// The records' keys for our Config; a key that is absent keeps the variant's value.
levit_unet::Config config_of(const json& c) {
  levit_unet::Config config = levit_unet::preset(c.at("variant").get<std::string>());
  take(c, "image_size", config.image);
  take(c, "in_channels", config.in_channels);
  take(c, "classes", config.classes);
  take(c, "stem_widths", config.stem);
  take(c, "embed", config.embed);
  take(c, "key_dim", config.key_dim);
  take(c, "heads", config.heads);
  take(c, "depth", config.depths);
  take(c, "attn_ratio", config.attention_ratio);
  take(c, "mlp_ratio", config.mlp_ratio);
  take(c, "decoder_widths", config.decoder);
  const json down = c.value("down", json::object());
  take(down, "heads", config.down_heads);
  take(down, "attn_ratio", config.down_attention_ratio);
  take(down, "mlp_ratio", config.down_mlp_ratio);
  if (const int64_t stride = down.value("stride", 2); stride != 2)
    fail("golden", "down.stride is " + std::to_string(stride) + "; only a grid halved at each stage fits the decoder");
  take(c, "folded", config.folded);  // in no record: for the test of folding
  config.drop_path = 0;
  return config;
}

template <class Module, class... Arguments>
auto forward_of(const Arguments&... arguments) {
  auto made = std::make_shared<Module>(arguments...);
  return [made](const Tensor& x, const nn::Phase& phase) {
    if constexpr (requires { Tensors((*made)(x, phase)); }) {
      return Tensors((*made)(x, phase));
    } else if constexpr (requires { (*made)(x, phase); }) {
      return Tensors{(*made)(x, phase)};
    } else {
      return Tensors{(*made)(x)};
    }
  };
}

levit_unet::Attention::Options attention_of(const json& c) {
  const int64_t side = c.at("resolution");
  levit_unet::Attention::Options o{.heads = c.at("heads"), .key_dim = c.at("key_dim"), .ratio = c.at("attn_ratio"),
                                   .grid = {side, side}};
  if (c.contains("dim")) {
    o.in = o.out = c.at("dim");
  } else {
    o.in = c.at("in_dim");
    o.out = c.at("out_dim");
    o.stride = c.at("stride");
  }
  return o;
}

}  // namespace

SubjectParts subject_levit_unet(const json& c, const nn::Builder& b) {
  SubjectParts subject{.import_name = levit_unet::import_name};
  const std::string module = c.value("module", "");
  if (module.empty()) {
    subject.forward = forward_of<levit_unet::Net>(b, config_of(c));
  } else if (module == "Attention" || module == "AttentionSubsample") {
    subject.forward = forward_of<levit_unet::Attention>(b, attention_of(c));
  } else if (module == "Conv2d_BN") {
    subject.forward = forward_of<levit_unet::ConvNorm>(
        b, levit_unet::ConvNorm::Options{.in = c.at("in_channels"), .out = c.at("out_channels"),
                                         .kernel = c.at("kernel"), .stride = c.at("stride"),
                                         .padding = c.at("padding"), .folded = c.value("folded", false)});
  } else if (module == "Linear_BN") {
    subject.forward = forward_of<levit_unet::LinearNorm>(
        b, levit_unet::LinearNorm::Options{.in = c.at("in_features"), .out = c.at("out_features"),
                                           .folded = c.value("folded", false)});
  } else if (module == "DecoderBlock") {
    const int64_t in = c.at("in_channels"), out = c.at("out_channels");
    subject.forward = forward_of<levit_unet::DecoderBlock>(b, in, out, nn::NormKind::batch, false);
  } else if (module == "SegmentationHead") {
    const int64_t in = c.at("in_channels"), classes = c.at("classes");
    subject.forward = forward_of<levit_unet::Head>(b, in, classes);
  } else {
    fail("golden", "module '" + module + "' is not known");
  }
  return subject;
}

// paper_VARIANT, paper_VARIANT_1_class, paper_192_without_block_list: the last is the same network, of which
// the released 192 lists every transformer block twice, so that tools that walk the list count it twice.
std::optional<NetConfig> counted_levit_unet(const std::string& name) {
  for (const std::string& variant : net_variants("levit_unet")) {
    const std::string prefix = "paper_" + variant;
    if (!name.starts_with(prefix)) continue;
    const std::string rest = name.substr(prefix.size());
    NetConfig config = net_preset("levit_unet", variant);
    if (rest == "_1_class") config.levit_unet.classes = 1;
    if (rest == "_without_block_list") config.levit_unet.repeated_blocks = false;
    if (rest.empty() || rest == "_1_class" || rest == "_without_block_list") return config;
  }
  return std::nullopt;
}

}  // namespace voxlab
