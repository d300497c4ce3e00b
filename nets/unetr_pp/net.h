// The network of UNETR++; see NOTES.md beside this file for figure, equations and quirks.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "nets/blocks/unetr_blocks.h"
#include "nets/unetr_pp/config.h"
#include "runtime/nn/layers.h"

namespace voxlab::unetr_pp {

using blocks::ResBlock;

// Efficient paired attention (EPA), a channel and a spatial branch on one query and key:
// x (B, N, C) -> (B, N, C).
class Epa {
 public:
  struct Options {
    int64_t tokens = 0;
    int64_t width = 0;
    int64_t projection = 64;
    int64_t heads = 4;
    bool decoder = false;  // linear layers start differently in encoder and decoder
  };
  Epa(const nn::Builder& b, const Config& c, const Options& o);
  Tensor operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  Tensor channel_branch(const Tensor& q, const Tensor& k, const Tensor& v, const nn::Phase& phase) const;
  Tensor spatial_branch(const Tensor& q, const Tensor& k, const Tensor& v, const nn::Phase& phase) const;
  Tensors parts(const Tensor& x) const;  // (B, N, C) -> channel value, query, key, spatial value, (B, C, N) each; of a branch
                                         // alone query, key and value
  // Spatial keys and values, (B, C, N) each, to (B, heads, d, P).
  std::pair<Tensor, Tensor> project(const Tensor& k, const Tensor& v) const;
  Tensor project_key(const Tensor& x) const;  // (..., N) -> (..., P)

  std::string scope_;
  Config config_;
  Options options_;
  nn::Linear qkvv_;
  nn::ParameterPtr temperature_channel_, temperature_spatial_;
  std::optional<nn::Linear> project_key_, project_value_;  // value absent: shared with the key
  nn::ParameterPtr projection_matrix_;                     // shared_matrix only
  nn::Dropout drop_channel_, drop_spatial_;
  std::optional<nn::Linear> out_spatial_, out_channel_;
};

// Transformer block: position embedding, x + gamma EPA(LN(x)), then convolution blocks around which x is
// added again. Without attention (an ablation) only the convolutional half remains.
class Block {
 public:
  Block(const nn::Builder& b, const Config& c, const Epa::Options& o, bool attention);
  Tensor operator()(const Tensor& x, const nn::Phase& phase) const;  // (B, D, H, W, C)

 private:
  Tensor body(const Tensor& x, const nn::Phase& phase) const;

  std::string scope_;
  struct Attend {
    nn::ParameterPtr position;
    nn::LayerNorm norm;
    nn::ParameterPtr gamma;
    Epa epa;
  };
  std::optional<Attend> attend_;
  ResBlock conv51_;
  std::optional<ResBlock> conv52_;
  nn::Dropout drop_;
  nn::Conv conv8_;
};

class Encoder {
 public:
  Encoder(const nn::Builder& b, const Config& c);
  std::array<Tensor, 4> operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  std::string scope_;
  struct Down {
    std::string scope;
    nn::Conv conv;
    nn::GroupNorm norm;
  };
  std::vector<Down> down_;
  std::vector<std::vector<Block>> stages_;
  std::vector<std::string> stage_scopes_;
};

// Transposed convolution, plus the skip, then blocks (or, at full resolution and in the ablation without
// decoder attention, one residual convolution block).
class UpBlock {
 public:
  struct Options {
    int64_t in = 0;
    int64_t out = 0;
    std::vector<int64_t> scale{2, 2, 2};
    int64_t depth = 0;   // 0: a residual convolution block
    int64_t tokens = 0;
  };
  UpBlock(const nn::Builder& b, const Config& c, const Options& o);
  Tensor operator()(const Tensor& x, const Tensor& skip, const nn::Phase& phase) const;

 private:
  std::string scope_;
  nn::ConvTranspose up_;
  std::vector<Block> blocks_;
  std::optional<ResBlock> res_;
};

class Net {
 public:
  Net(const nn::Builder& b, const Config& c);
  // x (B, D, H, W, in_channels) -> logits at full resolution, and with deep supervision also at the stem's
  // grid and at half of it.
  Tensors operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  Config config_;
  Encoder encoder_;
  ResBlock skip_;
  UpBlock decoder5_, decoder4_, decoder3_, decoder2_;
  nn::Conv out1_;
  std::optional<nn::Conv> out2_, out3_;
};

// Our name of a parameter for a key of the authors' state_dict, "" for keys without one
// (num_batches_tracked).
std::string import_name(std::string_view official_key);

}  // namespace voxlab::unetr_pp
