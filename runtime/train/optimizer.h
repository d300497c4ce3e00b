// Optimizer: SGD, Adam or AdamW over named parameters, with its state as named tensors for checkpoints.
#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include "runtime/core/tensor.h"
#include "runtime/core/visit.h"

namespace voxlab::train {

enum class OptimizerKind : uint8_t { sgd, adam, adamw };

constexpr auto enum_names(OptimizerKind) {
  return std::array{std::pair{std::string_view("sgd"), OptimizerKind::sgd},
                    std::pair{std::string_view("adam"), OptimizerKind::adam},
                    std::pair{std::string_view("adamw"), OptimizerKind::adamw}};
}

// The defaults are nnU-Net's.
struct OptimizerConfig {
  OptimizerKind kind = OptimizerKind::sgd;
  double lr = 0.01;
  double weight_decay = 3e-5;  // adamw: decoupled; otherwise L2, added to the gradient
  double clip_norm = 12;       // of all gradients together; 0: no clipping
  double momentum = 0.99;      // sgd
  double dampening = 0;
  bool nesterov = true;
  double beta1 = 0.9;          // adam, adamw
  double beta2 = 0.999;
  double eps = 1e-8;
  bool amsgrad = false;
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("kind", s.kind); v("lr", s.lr); v("weight_decay", s.weight_decay); v("clip_norm", s.clip_norm);
    v("momentum", s.momentum); v("dampening", s.dampening); v("nesterov", s.nesterov);
    v("beta1", s.beta1); v("beta2", s.beta2); v("eps", s.eps); v("amsgrad", s.amsgrad);
  }
};

struct NamedTensor {
  std::string name;
  Tensor value;
};

// sqrt of the sum of squares over all defined tensors, accumulated in f64 in the order given. NaN on meta.
double global_norm(std::span<const Tensor> gradients);

// PyTorch's clip_grad_norm_: min(1, max_norm / (norm + 1e-6)); 1 when max_norm is 0.
double clip_factor(double norm, double max_norm);

class Optimizer {
 public:
  // Updates the parameters' own memory. Names must differ.
  Optimizer(OptimizerConfig config, std::vector<NamedTensor> parameters);

  // One update with gradients in the parameters' order; a parameter whose gradient is undefined stays as
  // it is. Returns the norm before clipping, 0 when there is no clipping.
  double step(std::span<const Tensor> gradients, double lr);
  // The same for a caller that has global_norm(gradients) already.
  void step(std::span<const Tensor> gradients, double lr, double norm);

  // Everything that a resumed run needs: "momentum/<parameter>" or "exp_avg/...", "exp_avg_sq/...",
  // "max_exp_avg_sq/...", and "steps/<parameter>" (i64, how often it was updated).
  std::vector<NamedTensor> state() const;
  // Error when a tensor is missing, unknown, or of another shape or dtype. The values are copied.
  void load_state(std::span<const NamedTensor> state);

  const OptimizerConfig& config() const { return config_; }

 private:
  struct Slot {
    std::string name;
    Tensor parameter;
    Tensors moments;
    int64_t steps = 0;
  };
  void update(Slot& slot, const Tensor& gradient, double lr, double grad_scale) const;
  std::vector<std::string_view> moment_names() const;

  OptimizerConfig config_;
  std::vector<Slot> slots_;
};

}  // namespace voxlab::train
