// UNETR from the records' keys.
#include <nlohmann/json.hpp>

#include "experiments/golden/subject.h"
#include "nets/unetr/net.h"

namespace voxlab {

SubjectParts subject_unetr(const nlohmann::json& c, const nn::Builder& builder) {
  unetr::Config config;
  take(c, "image_size", config.image);
  take(c, "in_channels", config.in_channels);
  take(c, "classes", config.classes);
  take(c, "feature_size", config.feature_size);
  take(c, "hidden_size", config.hidden);
  take(c, "mlp_dim", config.mlp);
  take(c, "num_heads", config.heads);
  const auto made = std::make_shared<unetr::Net>(builder, config);
  return {.forward = [made](const Tensor& x, const nn::Phase& phase) { return (*made)(x, phase); },
          .import_name = unetr::import_name};
}

std::optional<NetConfig> counted_unetr(const std::string& name) {
  if (name == "unetr_96") return net_preset("unetr", "btcv");
  if (name == "unetr_64x128x128") return net_preset("unetr", "synapse");
  if (name == "unetr_brats_128") return net_preset("unetr", "brats");
  return std::nullopt;
}

}  // namespace voxlab
