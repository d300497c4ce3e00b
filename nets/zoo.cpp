#include "nets/zoo.h"

#include <span>

#include "nets/levit_unet/net.h"
#include "nets/brats_unet/net.h"
#include "nets/dae_former/net.h"
#include "nets/unetr/net.h"
#include "nets/unetr_pp/net.h"
#include "nets/ux_net/net.h"

namespace voxlab {
namespace {

// A network of the zoo. Each folder gives, in its namespace: Config (with image, in_channels, classes),
// variants, preset, validate, Net and import_name.
struct Entry {
  std::string_view name;
  std::span<const std::string_view> variants;
  void (*take_preset)(NetConfig& config);
  void (*check)(const NetConfig& config);
  Network (*make)(const NetConfig& config, const nn::Builder::Options& options);
};

template <class Net, auto member, auto preset, auto import_name>
constexpr Entry entry(std::string_view name, std::span<const std::string_view> variants) {
  return {
      .name = name,
      .variants = variants,
      .take_preset = [](NetConfig& config) { config.*member = preset(config.variant); },
      .check = [](const NetConfig& config) { validate(config.*member); },
      .make =
          [](const NetConfig& config, const nn::Builder::Options& options) {
            Network network;
            auto net = std::make_shared<Net>(nn::Builder(network.parameters, options), config.*member);
            network.forward = [net](const Tensor& x, const nn::Phase& phase) { return (*net)(x, phase); };
            network.import_name = import_name;
            return network;
          }};
}

const Entry entries[] = {
    entry<unetr_pp::Net, &NetConfig::unetr_pp, unetr_pp::preset, unetr_pp::import_name>("unetr_pp", unetr_pp::variants),
    entry<ux_net::Net, &NetConfig::ux_net, ux_net::preset, ux_net::import_name>("ux_net", ux_net::variants),
    entry<levit_unet::Net, &NetConfig::levit_unet, levit_unet::preset, levit_unet::import_name>(
        "levit_unet", levit_unet::variants),
    entry<brats_unet::Net, &NetConfig::brats_unet, brats_unet::preset, brats_unet::import_name>("brats_unet",
                                                                                                 brats_unet::variants),
    entry<dae_former::Net, &NetConfig::dae_former, dae_former::preset, dae_former::import_name>("dae_former",
                                                                                                dae_former::variants),
    entry<unetr::Net, &NetConfig::unetr, unetr::preset, unetr::import_name>("unetr", unetr::variants),
};

const Entry& entry_of(const std::string& net) {
  for (const Entry& each : entries)
    if (each.name == net) return each;
  fail_unknown_net(net);
}

}  // namespace

void fail_unknown_net(const std::string& net) {
  std::string known;
  for (const Entry& each : entries) known += (known.empty() ? "" : ", ") + std::string(each.name);
  fail("net", "'" + net + "' is none of " + known);
}

std::vector<std::string> net_names() {
  std::vector<std::string> names;
  for (const Entry& each : entries) names.emplace_back(each.name);
  return names;
}

std::vector<std::string> net_variants(const std::string& net) {
  const auto variants = entry_of(net).variants;
  return {variants.begin(), variants.end()};
}

NetConfig net_preset(const std::string& net, const std::string& variant) {
  const Entry& found = entry_of(net);
  NetConfig config;
  config.net = net;
  config.variant = variant.empty() ? std::string(found.variants.front()) : variant;
  found.take_preset(config);
  return config;
}

void validate(const NetConfig& config) { entry_of(config.net).check(config); }

NetInterface net_interface(const NetConfig& config) {
  NetInterface result;
  NetConfig::with_config(config, [&](std::string_view, const auto& c) {
    result = {.image = c.image, .in_channels = c.in_channels, .classes = c.classes};
  });
  return result;
}

Network make_network(const NetConfig& config, const nn::Builder::Options& options) {
  const NetInterface interface = net_interface(config);
  Network network = entry_of(config.net).make(config, options);
  network.patch = interface.image;
  network.in_channels = interface.in_channels;
  network.classes = interface.classes;
  return network;
}

}  // namespace voxlab
