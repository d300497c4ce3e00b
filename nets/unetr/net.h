// The network of UNETR (figure 1 of the paper): a vision transformer on 16x16x16 patches, its outputs at four depths
// brought back to the image by transposed convolutions.
#pragma once

#include <optional>

#include "nets/blocks/unetr_blocks.h"
#include "nets/unetr/config.h"

namespace voxlab::unetr {

using blocks::ResBlock;
using blocks::UpBlock;

// Multi-head self-attention, equations 4 to 6; query, key and value without bias.
class Attention {
 public:
  Attention(const nn::Builder& b, const Config& c);
  Tensor operator()(const Tensor& x) const;  // (B, N, C)

 private:
  std::string scope_;
  int64_t heads_;
  nn::Linear qkv_, out_;
};

// x + attention(norm(x)), then x + mlp(norm(x)): equations 2 and 3.
class Block {
 public:
  Block(const nn::Builder& b, const Config& c);
  Tensor operator()(const Tensor& x) const;  // (B, N, C)

 private:
  std::string scope_;
  nn::LayerNorm norm1_;
  Attention attention_;
  nn::LayerNorm norm2_;
  nn::Linear widen_, narrow_;
  std::optional<nn::LayerNorm> unused_norm_;
};

// From tokens to a skip: a transposed convolution, then `steps` times another with a residual block.
class TokenSkip {
 public:
  TokenSkip(const nn::Builder& b, int64_t in, int64_t out, int64_t steps);
  Tensor operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  struct Step {
    nn::ConvTranspose up;
    ResBlock res;
  };
  std::string scope_;
  nn::ConvTranspose up_;
  std::vector<Step> steps_;
};

class Net {
 public:
  Net(const nn::Builder& b, const Config& c);
  // x (N, D, H, W, in_channels) -> logits at full resolution.
  Tensors operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  Tensor embed(const Tensor& x) const;                // (N, D, H, W, C) -> tokens (N, L, hidden)
  std::array<Tensor, 4> tokens(const Tensor& x) const;  // after the three chosen blocks and after the last, as maps

  Config config_;
  nn::ParameterPtr patch_weight_, patch_bias_, position_;
  std::vector<Block> blocks_;
  nn::LayerNorm norm_;
  ResBlock encoder1_;
  TokenSkip encoder2_, encoder3_, encoder4_;
  UpBlock decoder5_, decoder4_, decoder3_, decoder2_;
  nn::Conv out_;
};

// Our name of a parameter for a key of MONAI's state_dict.
std::string import_name(std::string_view official_key);

}  // namespace voxlab::unetr
