// Convolution blocks that the UNETR family shares (Hatamizadeh et al., "UNETR", WACV 2022, fig. 2), as MONAI
// builds them: UnetResBlock and UnetrUpBlock.
#pragma once

#include <optional>

#include "runtime/nn/layers.h"

namespace voxlab::blocks {

// Two 3x3x3 convolutions with norms and leaky ReLU 0.01, and a residual path (1x1x1 convolution and norm
// where the width changes). Instance norm has no parameters, batch and group norm have.
class ResBlock {
 public:
  ResBlock(const nn::Builder& b, int64_t in, int64_t out, nn::NormKind norm, int64_t groups = 1);
  Tensor operator()(const Tensor& x, const nn::Phase& phase) const;

 private:
  std::string scope_;
  nn::Conv conv1_, conv2_;
  nn::Norm norm1_, norm2_;
  std::optional<nn::Conv> conv3_;
  std::optional<nn::Norm> norm3_;
};

// A transposed convolution doubles the grid, the skip is concatenated behind, a residual block brings both
// back to `out` channels.
class UpBlock {
 public:
  UpBlock(const nn::Builder& b, int64_t in, int64_t out, nn::NormKind norm, int64_t groups = 1);
  Tensor operator()(const Tensor& x, const Tensor& skip, const nn::Phase& phase) const;

 private:
  std::string scope_;
  nn::ConvTranspose up_;
  ResBlock res_;
};

}  // namespace voxlab::blocks
