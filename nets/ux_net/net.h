// The network of 3D UX-Net; see NOTES.md beside this file for figure, equations and quirks.
#pragma once

#include <optional>

#include "nets/blocks/unetr_blocks.h"
#include "nets/ux_net/config.h"

namespace voxlab::ux_net {

using blocks::ResBlock;
using blocks::UpBlock;

// 3D UX-Net block (figure 2, equation 2): large-kernel depth-wise convolution, layer norm, channel scaling
// 1 -> 4 -> 1 with GELU between, layer scale, and x around all of it.
class Block {
 public:
  Block(const nn::Builder& b, const Config& c, int64_t width, double drop_path);
  Tensor operator()(const Tensor& x, const nn::Phase& phase) const;  // (N, D, H, W, C)

 private:
  std::string scope_;
  nn::Conv conv_;
  nn::LayerNorm norm_;
  nn::Conv expand_, reduce_;
  nn::ParameterPtr gamma_;  // absent when layer_scale is 0
  nn::Dropout drop_path_;
};

// Four stages of blocks at 1/2, 1/4, 1/8, 1/16 of the image.
class Encoder {
 public:
  Encoder(const nn::Builder& b, const Config& c);
  // The four stages' maps, each through a layer norm of its own.
  std::array<Tensor, 4> operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  struct Stage {
    std::string scope;
    std::vector<Block> blocks;
  };
  // In front of a stage: the stem is convolution, then norm; the others are norm, then convolution.
  struct Down {
    std::string scope;
    nn::Conv conv;
    nn::LayerNorm norm;
  };
  std::string scope_;
  std::vector<Down> down_;
  std::vector<Stage> stages_;
  std::vector<nn::LayerNorm> out_norms_;
};

class Net {
 public:
  Net(const nn::Builder& b, const Config& c);
  // x (N, D, H, W, in_channels) -> logits at full resolution.
  Tensors operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  Config config_;
  Encoder encoder_;
  ResBlock encoder1_, encoder2_, encoder3_, encoder4_, encoder5_;
  UpBlock decoder5_, decoder4_, decoder3_, decoder2_;
  ResBlock decoder1_;
  nn::Conv out_;
};

// Our name of a parameter for a key of the authors' state_dict.
std::string import_name(std::string_view official_key);

}  // namespace voxlab::ux_net
