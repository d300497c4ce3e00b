// 3D UX-Net and its blocks from the records' keys.
#include <charconv>
#include <nlohmann/json.hpp>

#include "experiments/golden/subject.h"
#include "nets/ux_net/net.h"
#include "runtime/core/error.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {

using nlohmann::json;

// "grouped 1x1x1, groups = width (expansion 4)" or "dense 1x1x1".
ux_net::Scaling scaling_of(const std::string& text) {
  if (text.starts_with("grouped")) return ux_net::Scaling::grouped;
  if (text.starts_with("dense")) return ux_net::Scaling::dense;
  fail("golden", "pointwise '" + text + "' is neither grouped nor dense");
}

// A key whose value the network's code fixes.
template <class T>
void expect_fixed(const json& c, const char* key, const T& value) {
  if (c.contains(key) && c.at(key).get<T>() != value)
    fail("golden", std::string(key) + " " + c.at(key).dump() + " is not built, only " + json(value).dump());
}

// The records' keys for our Config; a key that is absent keeps the preset's value.
ux_net::Config config_of(const json& c) {
  ux_net::Config config = ux_net::preset("flare");
  take(c, "image_size", config.image);
  take(c, "in_channels", config.in_channels);
  take(c, "classes", config.classes);
  take(c, "depths", config.depths);
  take(c, "feature_sizes", config.widths);
  take(c, "hidden_size", config.hidden);
  take(c, "depthwise_kernel", config.kernel);
  if (c.contains("pointwise")) config.scaling = scaling_of(c.at("pointwise"));
  expect_fixed(c, "layer_norm_eps", 1e-6);
  expect_fixed(c, "gelu", std::string("erf"));
  return config;
}

// The record's one input: `deep` channels are the deep map, the numbers in the others are, in the order of
// (N, C, D, H, W), the skip map with half as many channels and twice the size.
std::pair<Tensor, Tensor> deep_and_skip(const Tensor& x, int64_t deep, int64_t skip_channels) {
  const Tensor rest = slice(x, -1, deep, x.size(-1) - deep);
  const Tensor skip = reshape(permute(rest, {0, 4, 1, 2, 3}),
                              {x.size(0), skip_channels, 2 * x.size(1), 2 * x.size(2), 2 * x.size(3)});
  return {slice(x, -1, 0, deep), permute(skip, {0, 2, 3, 4, 1})};
}

template <class Made>
auto forward_of(std::shared_ptr<Made> made) {
  return [made](const Tensor& x, const nn::Phase& phase) { return Tensors{(*made)(x, phase)}; };
}

void build_block(SubjectParts& subject, const json& c, const ux_net::Config& config, const nn::Builder& builder) {
  const std::string module = c.at("module");
  for (const char* key : {"norm", "activation"})
    if (c.contains(key) && !c.at(key).get<std::string>().starts_with(key == std::string("norm") ? "instance" : "leaky"))
      fail("golden", std::string(key) + " '" + c.at(key).get<std::string>() + "' is not built");
  expect_fixed(c, "residual", true);
  expect_fixed(c, "kernel", 3);
  expect_fixed(c, "stride", 1);
  expect_fixed(c, "upsample_kernel", 2);
  if (module.starts_with("ux_block")) {
    subject.forward = forward_of(std::make_shared<ux_net::Block>(builder, config, c.at("width"), 0));
  } else if (module.starts_with("uxnet_conv")) {
    const auto made = std::make_shared<ux_net::Encoder>(builder, config);
    subject.forward = [made](const Tensor& x, const nn::Phase& phase) {
      const auto features = (*made)(x, phase);
      return Tensors(features.begin(), features.end());
    };
  } else if (module.starts_with("UnetrBasicBlock")) {
    subject.forward = forward_of(std::make_shared<ux_net::ResBlock>(builder, c.at("in_channels"), c.at("out_channels"),
                                                                    config.decoder_norm));
  } else if (module.starts_with("UnetrUpBlock")) {
    const int64_t deep = c.at("in_channels"), out = c.at("out_channels");
    const auto made = std::make_shared<ux_net::UpBlock>(builder, deep, out, config.decoder_norm);
    subject.forward = [made, deep, out](const Tensor& x, const nn::Phase& phase) {
      const auto [low, skip] = deep_and_skip(x, deep, out);
      return Tensors{(*made)(low, skip, phase)};
    };
  } else {
    fail("golden", "module '" + module + "' is not known");
  }
}

}  // namespace

SubjectParts subject_ux_net(const json& c, const nn::Builder& builder) {
  SubjectParts subject{.import_name = ux_net::import_name};
  const ux_net::Config config = config_of(c);
  if (c.contains("module")) {
    build_block(subject, c, config, builder);
  } else {
    const auto made = std::make_shared<ux_net::Net>(builder, config);
    subject.forward = [made](const Tensor& x, const nn::Phase& phase) { return (*made)(x, phase); };
  }
  return subject;
}

// Parts joined by '_': "paper"; kN, the kernel, with or without "dense"; N classes as in feta_8_classes, classes_4.
std::optional<NetConfig> counted_ux_net(const std::string& name) {
  NetConfig config = net_preset("ux_net", "flare");
  bool classes_named = false;
  std::optional<int64_t> number;
  for (size_t start = 0; start <= name.size();) {
    const size_t end = std::min(name.find('_', start), name.size());
    const std::string part = name.substr(start, end - start);
    start = end + 1;
    const bool kernel = part.starts_with('k');
    int64_t value = 0;
    const auto [stop, error] = std::from_chars(part.data() + (kernel ? 1 : 0), part.data() + part.size(), value);
    const bool whole = error == std::errc() && stop == part.data() + part.size();
    if (kernel && whole) config.ux_net.kernel = value;
    else if (whole) number = value;
    else if (part == "classes") classes_named = true;
    else if (part == "dense") config.ux_net.scaling = ux_net::Scaling::dense;
    else if (part != "paper" && part != "feta" && part != "amos" && part != "default") return std::nullopt;
  }
  if (classes_named != number.has_value()) return std::nullopt;
  if (number) config.ux_net.classes = *number;
  return config;
}

}  // namespace voxlab
