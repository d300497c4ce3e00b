// The network of the BraTS 2021 winner; see NOTES.md beside this file for figure, options and quirks.
#pragma once

#include <array>
#include <optional>

#include "nets/brats_unet/config.h"
#include "runtime/nn/layers.h"

namespace voxlab::brats_unet {

// 3x3x3 convolution with bias, norm, leaky ReLU 0.01: the unit that everything is made of.
class ConvNormRelu {
 public:
  ConvNormRelu(const nn::Builder& b, const Config& c, int64_t in, int64_t out, int64_t stride = 1);
  Tensor operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  std::string scope_;
  nn::Conv conv_;
  nn::Dropout drop_;
  nn::Norm norm_;
};

// Two units; the first may have stride 2 (there is no pooling) or another width than the second.
class Level {
 public:
  struct Options {
    int64_t in = 0;
    int64_t first = 0;   // width of the first unit
    int64_t second = 0;  // and of the second
    int64_t stride = 1;
  };
  Level(const nn::Builder& b, const Config& c, const Options& o);
  Tensor operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  std::string scope_;
  ConvNormRelu unit1_, unit2_;
};

// Multi-head self-attention (Vaswani et al. 2017, eq. 1) along one spatial axis; all other axes are batch.
class AxisAttention {
 public:
  struct Options {
    int64_t width = 0;
    int64_t heads = 1;
    int64_t dim_heads = 1;  // width of one head; heads * dim_heads need not be `width`
    int axis = 1;           // 1, 2, 3: D, H, W
  };
  AxisAttention(const nn::Builder& b, const Options& o);
  Tensor operator()(const Tensor& x) const;  // (B, D, H, W, C)

 private:
  Tensor along_axis(const Tensor& x) const;  // (B, D, H, W, heads * d) -> (B, two axes, heads, axis, d)

  std::string scope_;
  Options options_;
  nn::Linear query_, key_value_, out_;
};

// y = A_W(A_H(A_D(x + e_D + e_H + e_W))) + x: learned axial positions, then the three axes one after the
// other without residual or norm in between; what is added at the end has no positions in it.
class AxialAttention {
 public:
  struct Options {
    std::array<int64_t, 3> size{};  // D, H, W
    int64_t width = 0;
    int64_t heads = 1;
    int64_t dim_heads = 1;
  };
  AxialAttention(const nn::Builder& b, const Options& o);
  Tensor operator()(const Tensor& x) const;  // (B, D, H, W, C)

 private:
  std::string scope_;
  std::array<nn::ParameterPtr, 3> positions_;
  std::vector<AxisAttention> axes_;
};

// One step up: transposed convolution, axial attention on its output where asked for, concatenation with the
// skip (the upsampled half comes first), two units, and a head where its logits are wanted.
class UpStep {
 public:
  UpStep(const nn::Builder& b, const Config& c, int64_t step);
  Tensor operator()(const Tensor& x, const Tensor& skip, const nn::Phase& phase) const;
  bool has_head() const { return head_.has_value(); }
  Tensor logits(const Tensor& features) const;  // of what operator() gave

 private:
  std::string scope_;
  nn::ConvTranspose up_;
  std::optional<AxialAttention> axial_;
  Level level_;
  std::optional<nn::Conv> head_;
};

class Net {
 public:
  Net(const nn::Builder& b, const Config& c);
  // x (B, D, H, W, in_channels) -> logits at full resolution, and with deep supervision at every level of
  // the decoder, finest first.
  Tensors operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  Config config_;
  std::vector<Level> encoder_;  // the last is the bottleneck
  std::vector<UpStep> decoder_;  // the deepest first
};

// Our name of a parameter for a key of the authors' state_dict, "" for keys without one
// (num_batches_tracked).
std::string import_name(std::string_view official_key);

}  // namespace voxlab::brats_unet
