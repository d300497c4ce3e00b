// Layers: parameters plus one op each. Shapes are channels last: (N, D, H, W, C) or (N, L, C).
#pragma once

#include <optional>

#include "runtime/nn/builder.h"
#include "runtime/ops/conv.h"
#include "runtime/ops/dropout.h"

namespace voxlab::nn {

// What differs between a training and an inference call, passed down explicitly.
struct Phase {
  bool training = false;       // batch statistics and dropout
  bool all_outputs = true;     // deep-supervision heads too
  uint64_t seed = 0;           // dropout numbers depend on (seed, layer's path, step)
  Tensor step = {};            // of training with dropout: step_number (ops/dropout.h)
};

class Linear {
 public:
  struct Options {
    int64_t in = 0;
    int64_t out = 0;
    bool bias = true;
    // PyTorch's default unless a network's code sets another: weights, bias.
    std::optional<Init> weight_init = {};
    std::optional<Init> bias_init = {};
  };
  Linear(const Builder& b, const Options& o);
  Tensor operator()(const Tensor& x) const;  // (..., in) -> (..., out)
  const Parameter& weight() const { return *weight_; }
  const ParameterPtr& bias() const { return bias_; }

 private:
  std::string scope_;
  ParameterPtr weight_, bias_;
};

class Conv {
 public:
  struct Options {
    int64_t in = 0;
    int64_t out = 0;
    std::vector<int64_t> kernel{3, 3, 3};
    std::vector<int64_t> stride{1};
    std::vector<int64_t> padding{0};
    int64_t groups = 1;
    bool bias = false;
    // PyTorch's default unless a network's code sets another: weights, bias.
    std::optional<Init> weight_init = {};
    std::optional<Init> bias_init = {};
  };
  Conv(const Builder& b, const Options& o);
  Tensor operator()(const Tensor& x) const;

 private:
  std::string scope_;
  ConvOptions options_;
  ParameterPtr weight_, bias_;
};

class ConvTranspose {
 public:
  struct Options {
    int64_t in = 0;
    int64_t out = 0;
    std::vector<int64_t> kernel{2, 2, 2};
    std::vector<int64_t> stride{2};
    std::optional<Init> weight_init = {};  // PyTorch's default unless a network's code sets another
  };
  ConvTranspose(const Builder& b, const Options& o);
  Tensor operator()(const Tensor& x) const;

 private:
  std::string scope_;
  ConvOptions options_;
  ParameterPtr weight_;
};

class LayerNorm {
 public:
  LayerNorm(const Builder& b, int64_t channels, double eps = 1e-5);
  Tensor operator()(const Tensor& x) const;

 private:
  std::string scope_;
  double eps_;
  ParameterPtr weight_, bias_;
};

class GroupNorm {
 public:
  GroupNorm(const Builder& b, int64_t groups, int64_t channels, double eps = 1e-5);
  Tensor operator()(const Tensor& x) const;

 private:
  std::string scope_;
  int64_t groups_;
  double eps_;
  ParameterPtr weight_, bias_;
};

enum class NormKind : uint8_t { batch, instance, group };

constexpr auto enum_names(NormKind) {
  return std::array{std::pair{std::string_view("batch"), NormKind::batch},
                    std::pair{std::string_view("instance"), NormKind::instance},
                    std::pair{std::string_view("group"), NormKind::group}};
}

// The norm of a convolution block. batch: affine, running statistics with momentum 0.1; instance: no
// parameters unless `affine`; group: affine. eps 1e-5 throughout, PyTorch's default.
class Norm {
 public:
  struct Options {
    NormKind kind = NormKind::batch;
    int64_t channels = 0;
    bool affine = true;
    int64_t groups = 1;  // of a group norm
    double momentum = 0.1;
    Init weight_init = Init::ones();
  };
  Norm(const Builder& b, const Options& o);
  Tensor operator()(const Tensor& x, const Phase& phase) const;

 private:
  Tensor batch_norm(const Tensor& x, const Phase& phase) const;
  std::string scope_;
  Options options_;
  ParameterPtr weight_, bias_, running_mean_, running_var_;
};

// Zeroes elements (or whole channels, or whole samples: drop path) with probability p in training and scales
// the rest by 1 / (1 - p).
class Dropout {
 public:
  Dropout(const Builder& b, double p, DropUnit unit = DropUnit::element);
  Tensor operator()(const Tensor& x, const Phase& phase) const;

 private:
  std::string scope_;
  uint32_t stream_;  // this layer's own random numbers
  double p_;
  DropUnit unit_;
};

}  // namespace voxlab::nn
