// The network of DAE-Former; see NOTES.md beside this file for figure, equations and quirks.
// Feature maps are (B, H, W, C) throughout; their tokens (B, N, C) are the same memory.
#pragma once

#include <optional>

#include "nets/dae_former/config.h"
#include "runtime/nn/layers.h"

namespace voxlab::dae_former {

// Convolution larger than its stride, then layer norm: (B, H, W, in) -> (B, H', W', out).
class PatchEmbed {
 public:
  struct Options {
    int64_t in = 0;
    int64_t out = 0;
    int64_t kernel = 3;
    int64_t stride = 2;
    int64_t padding = 1;
  };
  PatchEmbed(const nn::Builder& b, const Options& o);
  Tensor operator()(const Tensor& x) const;

 private:
  std::string scope_;
  nn::Conv proj_;
  nn::LayerNorm norm_;
};

// rho_q(Q) (rho_k(K)^T V) (Shen et al. 2021): keys are soft-maxed over positions, queries over
// channels, so the product of keys and values comes first and the cost is linear in the number of
// positions. q, k (B, N, heads dk), v (B, N, heads dv) -> (B, N, heads dv).
Tensor efficient_product(const Tensor& q, const Tensor& k, const Tensor& v, int64_t heads);

// Efficient attention: 1x1 projections around efficient_product.
class EfficientAttention {
 public:
  struct Options {
    int64_t width = 0;
    int64_t keys = 0;
    int64_t values = 0;
    int64_t heads = 1;
    bool decoder = false;  // weights start differently in encoder and decoder
  };
  EfficientAttention(const nn::Builder& b, const Options& o);
  Tensor operator()(const Tensor& x) const;

 private:
  std::string scope_;
  int64_t heads_;
  nn::Conv keys_, queries_, values_, reprojection_;
};

// Channel ("transpose") attention: softmax over channels of the products of channels with channels,
// keys and queries L2-normalised along the positions, a learned factor per head.
class ChannelAttention {
 public:
  struct Options {
    int64_t width = 0;
    int64_t heads = 8;
    bool qkv_bias = false;
    bool decoder = false;
  };
  ChannelAttention(const nn::Builder& b, const Options& o);
  Tensor operator()(const Tensor& x) const;

 private:
  std::string scope_;
  int64_t heads_;
  nn::ParameterPtr temperature_;
  nn::Linear qkv_, proj_;
};

// mix_skip: fc2(gelu(norm(dw(h) + h))) with h = fc1(x) and dw a depth-wise 3x3 convolution;
// mix: fc2(gelu(dw(h))); mlp: fc2(gelu(h)).
class FeedForward {
 public:
  struct Options {
    int64_t width = 0;
    int64_t hidden = 0;
    bool decoder = false;
  };
  FeedForward(const nn::Builder& b, const Config& c, const Options& o);
  Tensor operator()(const Tensor& x) const;

 private:
  std::string scope_;
  TokenMlp kind_;
  bool repeat_fc1_;
  nn::Linear fc1_;
  std::optional<nn::Conv> depthwise_;
  std::optional<nn::LayerNorm> norm_;
  nn::Linear fc2_;
};

// x + mlp(norm2(x)): the second half of a layer.
class FeedForwardHalf {
 public:
  FeedForwardHalf(const nn::Builder& b, const Config& c, const FeedForward::Options& o);
  Tensor operator()(const Tensor& x) const;

 private:
  nn::LayerNorm norm2_;
  FeedForward mlp_;
};

enum class AttentionKind : uint8_t { efficient, channel };

// attention(norm1(x)): what the first half of a layer adds to x.
class NormedAttention {
 public:
  NormedAttention(const nn::Builder& b, const Config& c, const EfficientAttention::Options& o,
                  AttentionKind kind);
  Tensor operator()(const Tensor& x) const;

 private:
  std::string scope_;
  nn::LayerNorm norm1_;
  std::optional<EfficientAttention> efficient_;
  std::optional<ChannelAttention> channel_;
};

// Transformer layer: both halves.
class Layer {
 public:
  Layer(const nn::Builder& b, const Config& c, const EfficientAttention::Options& o,
        AttentionKind kind);
  Tensor operator()(const Tensor& x) const;

 private:
  std::string scope_;
  NormedAttention attention_;
  FeedForwardHalf feed_forward_;
};

// Dual attention block: a layer with efficient attention and one with channel attention, one after
// the other; or fused (ablation) and followed by a feed-forward of their own.
class DualBlock {
 public:
  DualBlock(const nn::Builder& b, const Config& c, const EfficientAttention::Options& o);
  Tensor operator()(const Tensor& x) const;

 private:
  Tensor fuse(const Tensor& x) const;

  std::string scope_;
  std::vector<Layer> layers_;
  std::vector<NormedAttention> attentions_;  // without layers: Attention::add
  std::optional<nn::LayerNorm> concat_norm_;
  std::optional<nn::Linear> reduce_;
  std::optional<FeedForwardHalf> fused_;
};

// Efficient attention from decoder to encoder without projections of its own, then a projection to
// twice the width and layer norm: (B, H, W, C) each -> (B, H, W, 2 C).
class CrossAttention {
 public:
  struct Options {
    int64_t width = 0;
    int64_t keys = 0;  // the first channels of the map that keys and queries are taken from
  };
  CrossAttention(const nn::Builder& b, const Config& c, const Options& o);
  Tensor operator()(const Tensor& decoder, const Tensor& encoder) const;

 private:
  std::string scope_;
  CrossKeys cross_keys_;
  Options options_;
  int64_t heads_;
  nn::Conv reprojection_;
  nn::LayerNorm norm_;
};

// Skip-connection cross attention (SCCA): one norm for both maps, the concatenated maps as
// residual, and a feed-forward on twice the width.
class CrossBlock {
 public:
  CrossBlock(const nn::Builder& b, const Config& c, const CrossAttention::Options& o);
  Tensor operator()(const Tensor& decoder, const Tensor& encoder) const;

 private:
  std::string scope_;
  nn::LayerNorm norm1_;
  CrossAttention attention_;
  FeedForwardHalf feed_forward_;
};

// Patch expanding: a linear layer to factor^2 times the new width, whose features are spread over a
// factor x factor square of positions; then layer norm.
class PatchExpand {
 public:
  PatchExpand(const nn::Builder& b, int64_t in, int64_t out, int64_t factor);
  Tensor operator()(const Tensor& x) const { return spread(packed(x)); }  // (B, f H, f W, out)

  // The two steps: what acts on each position alone may stand between them.
  Tensor packed(const Tensor& x) const;  // (B, H, W, f f, out)
  Tensor spread(const Tensor& x) const;

 private:
  std::string scope_;
  int64_t out_, factor_;
  nn::Linear expand_;
  nn::LayerNorm norm_;
};

// A level of the decoder: join with the encoder's map, dual blocks, expansion. A level without a
// skip, as the deepest is, expands only; the finest ends in the class scores.
class DecoderLevel {
 public:
  struct Options {
    int64_t in = 0;  // width of the deeper level's tokens
    CrossAttention::Options cross;
    EfficientAttention::Options efficient;
    bool skip = true;
    bool finest = false;
  };
  DecoderLevel(const nn::Builder& b, const Config& c, const Options& o);
  Tensor operator()(const Tensor& deeper, const Tensor& encoder) const;

 private:
  struct Body {  // all but the expansion
    Body(const nn::Builder& b, const Config& c, const Options& o);
    Tensor operator()(const Tensor& deeper, const Tensor& encoder) const;
    nn::Linear project;
    std::optional<CrossBlock> cross;
    nn::Linear concat_linear;
    std::vector<DualBlock> blocks;
  };
  std::string scope_;
  std::optional<Body> body_;
  PatchExpand expand_;
  std::optional<nn::Conv> classes_;
};

class Net {
 public:
  Net(const nn::Builder& b, const Config& c);
  // x (B, H, W, in_channels) -> logits (B, H, W, classes).
  Tensors operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  struct Stage {
    std::string scope;
    PatchEmbed embed;
    std::vector<DualBlock> blocks;
    nn::LayerNorm norm;
  };
  Config config_;
  std::vector<Stage> stages_;
  std::vector<DecoderLevel> decoder_;  // the deepest first
};

// Our name of a parameter for a key of the authors' state_dict.
std::string import_name(std::string_view official_key);

}  // namespace voxlab::dae_former
