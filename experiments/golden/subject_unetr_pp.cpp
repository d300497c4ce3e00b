// UNETR++ and its blocks from the records' keys.
#include <nlohmann/json.hpp>

#include "experiments/golden/subject.h"
#include "nets/unetr_pp/net.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

using nlohmann::json;

// The records' keys for our Config; a key that is absent keeps the variant's value.
unetr_pp::Config config_of(const json& c) {
  unetr_pp::Config config = unetr_pp::preset(c.at("variant").get<std::string>());
  take(c, "patch", config.patch);
  take(c, "image", config.image);
  take(c, "in_channels", config.in_channels);
  take(c, "classes", config.classes);
  take(c, "feature_size", config.feature_size);
  take(c, "dims", config.dims);
  take(c, "heads", config.heads);
  take(c, "encoder_depths", config.encoder_depths);
  take(c, "decoder_depths_5_4_3", config.decoder_depths);
  take(c, "proj_size_encoder", config.encoder_projection);
  take(c, "proj_size_decoder", config.decoder_projection);
  take(c, "deep_supervision", config.deep_supervision);
  config.attention_dropout = 0;
  config.conv_dropout = 0;
  return config;
}

}  // namespace

SubjectParts subject_unetr_pp(const json& c, const nn::Builder& builder) {
  SubjectParts subject{.import_name = unetr_pp::import_name};
  const unetr_pp::Config config = config_of(c);
  if (!c.contains("block")) {
    auto made = std::make_shared<unetr_pp::Net>(builder, config);
    subject.forward = [made](const Tensor& x, const nn::Phase& phase) { return (*made)(x, phase); };
    return subject;
  }
  const unetr_pp::Epa::Options epa{.tokens = c.at("tokens"), .width = c.at("hidden"),
                                   .projection = c.at("proj_size"), .heads = c.at("heads")};
  const std::string block = c.at("block");
  if (block == "EPA") {
    auto made = std::make_shared<unetr_pp::Epa>(builder, config, epa);
    subject.forward = [made](const Tensor& x, const nn::Phase& phase) { return Tensors{(*made)(x, phase)}; };
  } else if (block == "TransformerBlock") {
    auto made = std::make_shared<unetr_pp::Block>(builder, config, epa, true);
    subject.forward = [made](const Tensor& x, const nn::Phase& phase) { return Tensors{(*made)(x, phase)}; };
  } else {
    fail("golden", "block '" + block + "' is not known");
  }
  return subject;
}

// VARIANT_ds, VARIANT_no_ds, VARIANT_ds_epa_encoder_only; and UNETR, the baseline.
std::optional<NetConfig> counted_unetr_pp(const std::string& name) {
  if (name.starts_with("unetr_")) return counted_unetr(name);
  const std::string variant = name.substr(0, name.find('_'));
  for (const std::string& known : net_variants("unetr_pp")) {
    if (known != variant) continue;
    NetConfig config = net_preset("unetr_pp", variant);
    const std::string rest = name.substr(variant.size());
    config.unetr_pp.deep_supervision = rest != "_no_ds";
    if (rest == "_ds_epa_encoder_only") config.unetr_pp.attention = unetr_pp::Attention::encoder;
    if (rest == "_ds" || rest == "_no_ds" || rest == "_ds_epa_encoder_only") return config;
  }
  return std::nullopt;
}

}  // namespace voxlab
