#include <nlohmann/json.hpp>

#include "experiments/golden/subject.h"
#include "nets/unetr_pp/net.h"
#include "runtime/core/error.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {

using nlohmann::json;

// The records' keys for our Config; a key that is absent keeps the variant's value.
unetr_pp::Config config_of(const json& c) {
  unetr_pp::Config config = unetr_pp::preset(c.at("variant").get<std::string>());
  const auto take = [&](const char* key, auto& field) {
    if (c.contains(key)) field = c.at(key).get<std::remove_reference_t<decltype(field)>>();
  };
  take("patch", config.patch);
  take("image", config.image);
  take("in_channels", config.in_channels);
  take("classes", config.classes);
  take("feature_size", config.feature_size);
  take("dims", config.dims);
  take("heads", config.heads);
  take("encoder_depths", config.encoder_depths);
  take("decoder_depths_5_4_3", config.decoder_depths);
  take("proj_size_encoder", config.encoder_projection);
  take("proj_size_decoder", config.decoder_projection);
  take("deep_supervision", config.deep_supervision);
  config.attention_dropout = 0;
  config.conv_dropout = 0;
  return config;
}

}  // namespace

Subject build_subject(const json& record, const GoldenOptions& options) {
  const std::string net = record.value("net", "");
  if (net != "unetr_pp") fail("golden", "network '" + net + "' is not known");
  const json& c = record.at("config");
  Subject subject;
  subject.import_name = unetr_pp::import_name;
  const nn::Builder builder(subject.parameters, {.device = options.device, .dtype = options.dtype});
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

}  // namespace voxlab
