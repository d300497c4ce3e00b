// DAE-Former (Azad et al., "DAE-Former: Dual Attention-guided Efficient Transformer for Medical
// Image Segmentation", PRIME workshop at MICCAI 2023, arXiv 2212.13504).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace voxlab::dae_former {

// The feed-forward of a transformer layer; see FeedForward in net.h. `mlp` is named by the released
// code, which cannot run it.
enum class TokenMlp : uint8_t { mix_skip, mix, mlp };
constexpr auto enum_names(TokenMlp) {
  return std::array{std::pair{std::string_view("mix_skip"), TokenMlp::mix_skip},
                    std::pair{std::string_view("mix"), TokenMlp::mix},
                    std::pair{std::string_view("mlp"), TokenMlp::mlp}};
}

// Which attentions a dual block holds, and how they are joined (ablation of order and fusion).
enum class Attention : uint8_t {
  efficient_channel,  // released: a layer with efficient attention, then one with channel attention
  channel_efficient,  // the other order
  add,                // both attentions on the same input, summed, then one feed-forward
  add_layers,         // both layers on the same input, summed, then a third feed-forward
  concat,     // both layers on the same input, concatenated, projected, then a third feed-forward
  efficient,  // one layer, efficient attention alone
  channel,    // one layer, channel attention alone
};
constexpr auto enum_names(Attention) {
  return std::array{std::pair{std::string_view("efficient_channel"), Attention::efficient_channel},
                    std::pair{std::string_view("channel_efficient"), Attention::channel_efficient},
                    std::pair{std::string_view("add"), Attention::add},
                    std::pair{std::string_view("add_layers"), Attention::add_layers},
                    std::pair{std::string_view("concat"), Attention::concat},
                    std::pair{std::string_view("efficient"), Attention::efficient},
                    std::pair{std::string_view("channel"), Attention::channel}};
}

// How the decoder's tokens and the encoder's map are joined before concat_linear.
enum class Skip : uint8_t { cross_attention, concat };
constexpr auto enum_names(Skip) {
  return std::array{std::pair{std::string_view("cross_attention"), Skip::cross_attention},
                    std::pair{std::string_view("concat"), Skip::concat}};
}

// Where the cross attention takes its keys. Queries come from the encoder's map, values from the
// decoder. As released the keys are the encoder's too; a summary of the paper's first version has
// the decoder's.
enum class CrossKeys : uint8_t { encoder, decoder };
constexpr auto enum_names(CrossKeys) {
  return std::array{std::pair{std::string_view("encoder"), CrossKeys::encoder},
                    std::pair{std::string_view("decoder"), CrossKeys::decoder}};
}

struct Config {
  std::vector<int64_t> image{224, 224};  // H, W
  int64_t in_channels = 1;               // 1 is repeated to 3
  int64_t classes = 9;
  std::vector<int64_t> dims{128, 320, 512};  // width of each stage; two to four stages
  std::vector<int64_t> layers{2, 2, 2};      // dual blocks of each encoder stage
  std::vector<int64_t> key_dims;             // widths of keys and of values in efficient attention;
  std::vector<int64_t> value_dims;           // empty: dims
  int64_t efficient_heads = 1;
  int64_t channel_heads = 8;
  int64_t cross_heads = 1;
  bool qkv_bias = false;  // of the channel attention
  TokenMlp token_mlp = TokenMlp::mix_skip;
  int64_t decoder_layers = 2;  // dual blocks of each decoder level
  Attention attention = Attention::efficient_channel;
  int64_t skips = 2;  // decoder levels with a skip, counted from the finest
  Skip skip = Skip::cross_attention;
  CrossKeys cross_keys = CrossKeys::encoder;
  bool unused_parameters = true;  // tensors that the released network holds and never calls
  bool repeat_fc1 = false;        // mix_skip evaluates its first layer twice, as written

  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("image", s.image);
    v("in_channels", s.in_channels);
    v("classes", s.classes);
    v("dims", s.dims);
    v("layers", s.layers);
    v("key_dims", s.key_dims);
    v("value_dims", s.value_dims);
    v("efficient_heads", s.efficient_heads);
    v("channel_heads", s.channel_heads);
    v("cross_heads", s.cross_heads);
    v("qkv_bias", s.qkv_bias);
    v("token_mlp", s.token_mlp);
    v("decoder_layers", s.decoder_layers);
    v("attention", s.attention);
    v("skips", s.skips);
    v("skip", s.skip);
    v("cross_keys", s.cross_keys);
    v("unused_parameters", s.unused_parameters);
    v("repeat_fc1", s.repeat_fc1);
  }
};

int64_t key_dim(const Config& c, size_t stage);
int64_t value_dim(const Config& c, size_t stage);

// synapse is the released network. synapse_as_written does the same with every operation of the
// released code, the repeated one included: the published operation count. isic2018 has colour and
// one region.
constexpr std::string_view variants[] = {"synapse", "synapse_as_written", "isic2018"};
Config preset(std::string_view variant);

// Error naming the first field that does not fit.
void validate(const Config& c);

}  // namespace voxlab::dae_former
