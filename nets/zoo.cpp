#include "nets/zoo.h"

#include "nets/unetr_pp/net.h"
#include "runtime/core/error.h"

namespace voxlab {

std::vector<std::string> net_names() { return {"unetr_pp"}; }

std::vector<std::string> net_variants(const std::string& net) {
  if (net == "unetr_pp") return {"synapse", "acdc", "lung", "tumor"};
  fail("net", "'" + net + "' is none of unetr_pp");
}

NetConfig net_preset(const std::string& net, const std::string& variant) {
  NetConfig config;
  config.net = net;
  config.variant = variant.empty() ? net_variants(net).front() : variant;
  config.unetr_pp = unetr_pp::preset(config.variant);
  return config;
}

Network make_network(const NetConfig& config, const nn::Builder::Options& options) {
  if (config.net != "unetr_pp") net_variants(config.net);  // says which there are
  Network network;
  auto net = std::make_shared<unetr_pp::Net>(nn::Builder(network.parameters, options), config.unetr_pp);
  network.patch = config.unetr_pp.image;
  network.in_channels = config.unetr_pp.in_channels;
  network.classes = config.unetr_pp.classes;
  network.forward = [net](const Tensor& x, const nn::Phase& phase) { return (*net)(x, phase); };
  network.import_name = unetr_pp::import_name;
  return network;
}

}  // namespace voxlab
