// The networks by name: configuration in, a callable network out.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "nets/levit_unet/config.h"
#include "nets/brats_unet/config.h"
#include "nets/dae_former/config.h"
#include "nets/unetr/config.h"
#include "nets/unetr_pp/config.h"
#include "nets/ux_net/config.h"
#include "runtime/core/error.h"
#include "runtime/nn/layers.h"

namespace voxlab {

// Which network, and its configuration. `variant` names the preset that the network's own table starts
// from; a key of that table overrides the preset's value. Only the table of `net` is read, written, hashed.
struct NetConfig {
  std::string net = "unetr_pp";
  std::string variant = "synapse";
  unetr_pp::Config unetr_pp;
  ux_net::Config ux_net;
  levit_unet::Config levit_unet;
  brats_unet::Config brats_unet;
  dae_former::Config dae_former;
  unetr::Config unetr;

  // f(name, config) with the configuration of `net`; Error naming the networks there are.
  template <class Self, class F>
  static void with_config(Self& s, F&& f);

  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("net", s.net);
    v("variant", s.variant);
    with_config(s, v);
  }
};

[[noreturn]] void fail_unknown_net(const std::string& net);

template <class Self, class F>
void NetConfig::with_config(Self& s, F&& f) {
  if (s.net == "unetr_pp") return f("unetr_pp", s.unetr_pp);
  if (s.net == "ux_net") return f("ux_net", s.ux_net);
  if (s.net == "levit_unet") return f("levit_unet", s.levit_unet);
  if (s.net == "brats_unet") return f("brats_unet", s.brats_unet);
  if (s.net == "dae_former") return f("dae_former", s.dae_former);
  if (s.net == "unetr") return f("unetr", s.unetr);
  fail_unknown_net(s.net);
}

// The preset of a network's variant (empty: its first). Error naming what there is.
NetConfig net_preset(const std::string& net, const std::string& variant);
std::vector<std::string> net_names();
std::vector<std::string> net_variants(const std::string& net);

// Error naming the first field of the network's configuration that does not fit.
void validate(const NetConfig& config);

// What every network's configuration says of its input and output.
struct NetInterface {
  std::vector<int64_t> image;  // spatial input size, two or three axes
  int64_t in_channels = 1;
  int64_t classes = 2;
};
NetInterface net_interface(const NetConfig& config);

struct Network {
  nn::ParameterStore parameters;
  std::vector<int64_t> patch;  // spatial input size
  int64_t in_channels = 1;
  int64_t classes = 2;
  // x (N, spatial..., in_channels) -> logits, finest first; others for deep supervision.
  std::function<Tensors(const Tensor& x, const nn::Phase& phase)> forward;
  // Our parameter name for a key of the authors' checkpoints; "" for keys without one.
  std::function<std::string(std::string_view official_key)> import_name;
};

Network make_network(const NetConfig& config, const nn::Builder::Options& options);

}  // namespace voxlab
