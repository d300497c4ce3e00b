// DAE-Former and its blocks from the records' keys.
#include <map>
#include <nlohmann/json.hpp>

#include "experiments/golden/subject.h"
#include "nets/dae_former/net.h"
#include "runtime/core/error.h"
#include "runtime/core/visit.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {

using namespace dae_former;
using nlohmann::json;

// The records' keys for our Config; a key that is absent keeps the released value.
Config config_of(const json& c) {
  Config config = preset("synapse");
  take(c, "image_size", config.image);
  take(c, "in_channels", config.in_channels);
  take(c, "classes", config.classes);
  if (!c.contains("module"))
    take(c, "dims", config.dims);  // a decoder level's record has a number here
  take(c, "layers", config.layers);
  take(c, "key_dims", config.key_dims);
  take(c, "value_dims", config.value_dims);
  take(c, "efficient_attention_heads", config.efficient_heads);
  take(c, "channel_attention_heads", config.channel_heads);
  take(c, "cross_attention_heads", config.cross_heads);
  take(c, "qkv_bias", config.qkv_bias);
  if (c.contains("token_mlp"))
    config.token_mlp = parse_enum<TokenMlp>(c.at("token_mlp").get<std::string>(), "token_mlp");
  if (c.value("layer_norm_eps", 1e-5) != 1e-5)
    fail("golden", "dae_former has layer norms of eps 1e-5 only");
  return config;
}

// A block of the network stands at one place of it: there its parameters have our names, and under
// `official` theirs.
struct Place {
  const char* official;
  std::vector<const char*> ours;
};
const Place in_block{"backbone.block1.0.", {"encoder", "stage1", "block0"}};

Place place_of(const std::string& module) {
  static const std::map<std::string, Place> places = {
      {"DualTransformerBlock", in_block},
      {"EfficientAttention",
       {"backbone.block1.0.attn.",
        {"encoder", "stage1", "block0", "efficient", "efficient_attention"}}},
      {"ChannelAttention",
       {"backbone.block1.0.channel_attn.",
        {"encoder", "stage1", "block0", "channel", "channel_attention"}}},
      {"MixFFN", {"backbone.block1.0.mlp1.", {"encoder", "stage1", "block0", "efficient", "mlp"}}},
      {"OverlapPatchEmbeddings", {"backbone.patch_embed1.", {"encoder", "stage1", "embed"}}},
      {"Cross_Attention", {"decoder_0.cross_attn.attn.", {"decoder0", "cross", "attention"}}},
      {"CrossAttentionBlock", {"decoder_0.cross_attn.", {"decoder0", "cross"}}},
      {"PatchExpand", {"decoder_0.layer_up.", {"decoder0", "expand"}}},
      {"MyDecoderLayer", {"decoder_0.", {"decoder0"}}},
  };
  std::string kind = module.substr(0, module.find(','));
  if (kind == "MixFFN_skip" || kind == "MLP_FFN") kind = "MixFFN";
  if (kind == "FinalPatchExpand_X4") kind = "PatchExpand";
  const auto found = places.find(kind);
  if (found == places.end()) fail("golden", "module '" + module + "' is not known");
  return found->second;
}

// (B, N, C) <-> (B, H, W, C); one row where the record's block has no use for the two axes.
Tensor to_map(const Tensor& x, const json& c) {
  return reshape(x, {x.size(0), c.value("height", int64_t{1}), c.value("width", x.size(1)), -1});
}
Tensor to_tokens(const Tensor& x) { return reshape(x, {x.size(0), -1, x.size(-1)}); }

using Forward = std::function<Tensor(const Tensor&)>;

// A block that takes and gives tokens.
template <class Block, class... Args>
Forward on_tokens(const json& c, const nn::Builder& b, Args&&... args) {
  auto made = std::make_shared<Block>(b, std::forward<Args>(args)...);
  return [made, c](const Tensor& x) { return to_tokens((*made)(to_map(x, c))); };
}

// The record's one input holds both maps, (2, B, N, C), decoder first; as any tensor of four axes
// it comes with axis 1 last.
template <class Block>
Forward on_two_maps(const json& c, const nn::Builder& b, const Config& config) {
  const int64_t dim = c.at(c.contains("dim") ? "dim" : "value_channels");
  const int64_t keys = c.value("key_dim", c.value("key_channels", dim));
  auto made =
      std::make_shared<Block>(b, config, CrossAttention::Options{.width = dim, .keys = keys});
  return [made, c](const Tensor& x) {
    const Tensor both = permute(x, {0, 3, 1, 2});
    const auto map = [&](int64_t i) {
      return to_map(reshape(slice(both, 0, i, 1), {both.size(1), both.size(2), -1}), c);
    };
    return to_tokens((*made)(map(0), map(1)));
  };
}

// Features 0 ... x1_dim - 1 are the deeper tokens, the others the encoder's map.
Forward decoder_level(const json& c, const nn::Builder& b, Config config) {
  const int64_t width = c.at("out_dim"), deeper = c.at("x1_dim");
  const bool last = c.at("module") == "MyDecoderLayer, last";
  config.cross_heads = c.value("heads", config.cross_heads);
  const DecoderLevel::Options options{.in = deeper,
                                      .cross = {.width = width, .keys = c.value("key_dim", width)},
                                      .efficient = {.width = width,
                                                    .keys = c.value("key_dim", width),
                                                    .values = c.value("value_dim", width),
                                                    .heads = config.efficient_heads},
                                      .finest = last};
  auto made = std::make_shared<DecoderLevel>(b, config, options);
  return [made, c, width, deeper, last](const Tensor& x) {
    const Tensors part = split(x, -1, {deeper, width});
    const Tensor y = (*made)(to_map(part[0], c), to_map(part[1], c));
    return last ? y : to_tokens(y);
  };
}

Forward build_block(const std::string& module, const json& c, const nn::Builder& b, Config config) {
  const int64_t dim = c.value("dim", int64_t{0}), heads = c.value("heads", int64_t{1});
  if (module == "EfficientAttention") {
    auto made = std::make_shared<EfficientAttention>(
        b, EfficientAttention::Options{.width = c.at("in_channels"),
                                       .keys = c.at("key_channels"),
                                       .values = c.at("value_channels"),
                                       .heads = heads});
    return [made](const Tensor& x) { return (*made)(x); };
  }
  if (module == "ChannelAttention")
    return on_tokens<ChannelAttention>(
        c, b,
        ChannelAttention::Options{.width = dim,
                                  .heads = c.value("heads", config.channel_heads),
                                  .qkv_bias = config.qkv_bias});
  if (module == "OverlapPatchEmbeddings") {
    auto made = std::make_shared<PatchEmbed>(b, PatchEmbed::Options{.in = c.at("in_channels"),
                                                                    .out = dim,
                                                                    .kernel = c.at("kernel"),
                                                                    .stride = c.at("stride"),
                                                                    .padding = c.at("padding")});
    return [made](const Tensor& x) { return to_tokens((*made)(x)); };
  }
  if (module == "MixFFN" || module == "MixFFN_skip" || module == "MLP_FFN") {
    config.token_mlp = module == "MixFFN"    ? TokenMlp::mix
                       : module == "MLP_FFN" ? TokenMlp::mlp
                                             : TokenMlp::mix_skip;
    return on_tokens<FeedForward>(c, b, config,
                                  FeedForward::Options{.width = dim, .hidden = c.at("hidden")});
  }
  if (module == "DualTransformerBlock")
    return on_tokens<DualBlock>(
        c, b, config,
        EfficientAttention::Options{
            .width = dim, .keys = c.value("key_dim", dim), .values = c.value("value_dim", dim)});
  if (module == "PatchExpand") return on_tokens<PatchExpand>(c, b, dim, dim / 2, int64_t{2});
  if (module == "FinalPatchExpand_X4") return on_tokens<PatchExpand>(c, b, dim, dim, int64_t{4});
  config.cross_heads = heads;
  if (module == "CrossAttentionBlock") return on_two_maps<CrossBlock>(c, b, config);
  if (module == "Cross_Attention") return on_two_maps<CrossAttention>(c, b, config);
  return decoder_level(c, b, config);
}

}  // namespace

SubjectParts subject_dae_former(const json& c, const nn::Builder& builder) {
  SubjectParts subject{.import_name = import_name};
  const Config config = config_of(c);
  if (!c.contains("module")) {
    auto made = std::make_shared<Net>(builder, config);
    subject.forward = [made](const Tensor& x, const nn::Phase& phase) { return (*made)(x, phase); };
    return subject;
  }
  const std::string module = c.at("module");
  const Place place = place_of(module);
  nn::Builder at = builder;
  for (const char* part : place.ours) at = at / part;
  const Forward forward = build_block(module, c, at, config);
  subject.forward = [forward](const Tensor& x, const nn::Phase&) { return Tensors{forward(x)}; };
  subject.import_name = [official = std::string(place.official)](std::string_view key) {
    return import_name(official + std::string(key));
  };
  return subject;
}

// paper: colour; paper_one_channel: grey; both evaluate the first layer of a feed-forward twice, as
// written.
std::optional<NetConfig> counted_dae_former(const std::string& name) {
  NetConfig config =
      net_preset("dae_former", name == "fc1_once" ? "synapse" : "synapse_as_written");
  if (name != "paper_one_channel") config.dae_former.in_channels = 3;
  if (name == "paper" || name == "paper_one_channel" || name == "fc1_once") return config;
  return std::nullopt;
}

}  // namespace voxlab
