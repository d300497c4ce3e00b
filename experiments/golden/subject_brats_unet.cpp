// The BraTS 2021 network and its axial attention from the records' keys.
#include <nlohmann/json.hpp>

#include "experiments/golden/subject.h"
#include "nets/brats_unet/net.h"
#include "runtime/core/error.h"
#include "runtime/core/visit.h"

namespace voxlab {
namespace {

using nlohmann::json;

nn::NormKind norm_of(const std::string& text) {
  for (const auto& [name, kind] : enum_names(nn::NormKind{}))
    if (name == text) return kind;
  fail("golden", "norm '" + text + "' is not known");
}

brats_unet::Config config_of(const json& c) {
  brats_unet::Config config;
  take(c, "image", config.image);
  take(c, "in_channels", config.in_channels);
  take(c, "out_channels", config.classes);
  take(c, "base_features", config.base_features);
  take(c, "max_features", config.max_features);
  take(c, "num_pool", config.num_pool);
  take(c, "encoder_scale", config.encoder_scale);
  take(c, "groups", config.groups);
  take(c, "deep_supervision", config.deep_supervision);
  config.norm = norm_of(c.at("norm"));
  if (c.contains("axial")) {
    config.axial_steps = brats_unet::released_axial_steps(config.num_pool);
    take(c.at("axial"), "heads", config.axial_heads);
    take(c.at("axial"), "dim_heads", config.axial_dim_heads);
  }
  return config;
}

// The record of a block alone calls its tensors as the network does, without the number of the step.
std::string block_name(std::string_view official_key) {
  std::string key(official_key);
  key.insert(key.find('.'), ".0");
  const std::string ours = brats_unet::import_name(key), prefix = "decoder.step0.";
  return ours.starts_with(prefix) ? ours.substr(prefix.size()) : ours;
}

}  // namespace

SubjectParts subject_brats_unet(const json& c, const nn::Builder& builder) {
  if (c.contains("block")) {  // one kind of block is recorded; `block` describes it in words
    brats_unet::AxialAttention::Options options{
        .width = c.at("in_channels"), .heads = c.at("heads"), .dim_heads = c.at("dim_heads")};
    take(c, "image", options.size);
    auto made = std::make_shared<brats_unet::AxialAttention>(builder / "axial", options);
    return {.forward = [made](const Tensor& x, const nn::Phase&) { return Tensors{(*made)(x)}; },
            .import_name = block_name};
  }
  auto made = std::make_shared<brats_unet::Net>(builder, config_of(c));
  return {.forward = [made](const Tensor& x, const nn::Phase& phase) { return (*made)(x, phase); },
          .import_name = brats_unet::import_name};
}

// The presets by their names. The tools ran with deep supervision off, but the released network builds and
// computes every head all the same, so the heads stay.
std::optional<NetConfig> counted_brats_unet(const std::string& name) {
  const std::string variant = name == "bl_instance_norm" ? "bl_in" : name;
  for (const std::string& known : net_variants("brats_unet"))
    if (known == variant) return net_preset("brats_unet", variant);
  return std::nullopt;
}

}  // namespace voxlab
