// The network of LeViT-UNet; see NOTES.md beside this file for figure, equations and quirks.
#pragma once

#include <optional>

#include "nets/levit_unet/config.h"

namespace voxlab::levit_unet {

// A convolution without bias and its norm; folded, a convolution with bias alone.
class ConvNorm {
 public:
  struct Options {
    int64_t in = 0;
    int64_t out = 0;
    int64_t kernel = 3;
    int64_t stride = 1;
    int64_t padding = 1;
    nn::NormKind norm = nn::NormKind::batch;
    bool folded = false;
  };
  ConvNorm(const nn::Builder& b, const Options& o);
  Tensor operator()(const Tensor& x, const nn::Phase& phase) const;  // (N, H, W, in) -> (N, ..., out)

 private:
  std::string scope_;
  nn::Conv conv_;
  std::optional<nn::Norm> norm_;
};

// The same for tokens: the batch norm is over the batch and its tokens together.
class LinearNorm {
 public:
  struct Options {
    int64_t in = 0;
    int64_t out = 0;
    bool starts_at_zero = false;  // the norm's scale, so that a residual branch starts as nothing
    bool folded = false;
  };
  LinearNorm(const nn::Builder& b, const Options& o);
  Tensor operator()(const Tensor& x, const nn::Phase& phase) const;  // (B, N, in) -> (B, N, out)

 private:
  std::string scope_;
  nn::Linear linear_;
  std::optional<nn::Norm> norm_;
};

// LeViT's attention, softmax(Q K^T / sqrt(d) + bias) V with a learned bias for each head and offset; with
// stride 2 the queries are every second row and column, and the grid shrinks.
class Attention {
 public:
  struct Options {
    int64_t in = 0;
    int64_t out = 0;
    int64_t heads = 1;
    int64_t key_dim = 32;
    int64_t ratio = 2;                 // value's width a head / key_dim
    std::array<int64_t, 2> grid{};     // rows, columns of the tokens
    int64_t stride = 1;
    bool folded = false;
  };
  Attention(const nn::Builder& b, const Options& o);
  Tensor operator()(const Tensor& x, const nn::Phase& phase) const;  // (B, N, in) -> (B, queries, out)

 private:
  Tensor subsample(const Tensor& x) const;
  Tensor bias() const;  // (heads, queries, N)

  std::string scope_;
  Options options_;
  nn::ParameterPtr biases_;       // (offsets, heads)
  Tensor offsets_;                // i32 (queries, N): row of biases_
  std::optional<LinearNorm> qkv_;    // stride 1
  std::optional<LinearNorm> q_, kv_;  // larger strides
  LinearNorm proj_;
};

class Mlp {
 public:
  Mlp(const nn::Builder& b, int64_t width, int64_t hidden, bool folded);
  Tensor operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  std::string scope_;
  LinearNorm expand_, reduce_;
};

// One entry of a stage: x + drop(attention(x)), x + drop(mlp(x)), or the attention alone where it shrinks
// the grid.
class Block {
 public:
  Block(const nn::Builder& b, const Attention::Options& o, double drop_path);
  Block(const nn::Builder& b, int64_t width, int64_t hidden, double drop_path, bool folded);
  Tensor operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  std::string scope_;
  bool residual_;
  std::optional<Attention> attention_;
  std::optional<Mlp> mlp_;
  nn::Dropout drop_;
};

// Four strided convolutions: maps at 1/2, 1/4, 1/8 and 1/16.
class Stem {
 public:
  Stem(const nn::Builder& b, const Config& c);
  std::array<Tensor, 4> operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  std::string scope_;
  std::vector<ConvNorm> convs_;
};

class Transformer {
 public:
  Transformer(const nn::Builder& b, const Config& c);
  // The stem's last map -> the maps of the three stages.
  std::array<Tensor, 3> operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  std::string scope_;
  std::array<std::array<int64_t, 2>, 3> grids_;
  std::array<std::vector<Block>, 3> stages_;
};

// Bilinear x2, then twice convolution, norm, ReLU.
class DecoderBlock {
 public:
  DecoderBlock(const nn::Builder& b, int64_t in, int64_t out, nn::NormKind norm, bool folded);
  Tensor operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  std::string scope_;
  ConvNorm conv1_, conv2_;
};

// A convolution with bias at half resolution, then bilinear x2.
class Head {
 public:
  Head(const nn::Builder& b, int64_t in, int64_t classes);
  Tensor operator()(const Tensor& x) const;

 private:
  std::string scope_;
  nn::Conv conv_;
};

class Net {
 public:
  Net(const nn::Builder& b, const Config& c);
  Tensors operator()(const Tensor& x, const nn::Phase& phase) const;  // (N, H, W, in_channels) -> logits

 private:
  Tensor bottleneck(const Tensor& stem, const nn::Phase& phase) const;

  Config config_;
  Stem stem_;
  std::optional<Transformer> transformer_;
  std::vector<DecoderBlock> decoder_;
  Head head_;
};

// Fills `to`, the parameters of the folded network, from those of the same network unfolded: running
// statistics, scale and shift of each batch norm go into the weight before it and a bias. Error when they
// are not that pair.
void fold(const nn::ParameterStore& from, nn::ParameterStore& to);

// Our name of a parameter for a key of the authors' state_dict or of LeViT's own ImageNet checkpoints, ""
// for keys without one (counters, index tables, ImageNet heads).
std::string import_name(std::string_view official_key);

}  // namespace voxlab::levit_unet
