#include "experiments/main/net_options.h"

#include "experiments/config/bind.h"
#include "experiments/config/parse.h"
#include "runtime/core/error.h"

namespace voxlab {

NetConfig resolve_net(const NetOptions& options) {
  ConfigNode node;
  if (!options.config.empty()) node = load_config(options.config);
  for (const std::string& assignment : options.set) apply_override(node, assignment);
  std::string net = options.net, variant = options.variant;
  const auto from_file = [&](const char* key, std::string& value) {
    const ConfigNode* found = node.find(key);
    if (value.empty() && found != nullptr) read_value(*found, key, value);
  };
  from_file("net", net);
  from_file("variant", variant);
  if (net.empty()) net = net_names().front();
  NetConfig config = net_preset(net, variant);
  // What the file says beside the network is another command's business; what is set here is meant.
  for (const std::string& assignment : options.set) {
    const std::string key = assignment.substr(0, assignment.find_first_of(".="));
    if (key != net && key != "net" && key != "variant")
      fail("--set " + assignment, "is no key of the network: those start with " + net + ".");
  }
  // A whole experiment may be named too: only the network's own table is read here.
  if (const ConfigNode* table = node.find(net)) {
    ConfigNode only;
    only.at = node.at;
    only.set(net, *table);
    read_value(only, "", config);
  }
  return config;
}

}  // namespace voxlab
