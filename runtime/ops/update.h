// Optimizer updates. They change parameters and state in place, so a tape refuses them.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

// The rules are PyTorch's (torch.optim). Every gradient is first multiplied by grad_scale: clipping
// costs no pass of its own.

// param, grad, momentum buffer (absent without momentum) -> param, buffer.
struct SgdStep {
  static constexpr std::string_view name = "sgd_step";
  static constexpr Precision precision = Precision::full;
  struct Attrs {
    double lr = 0.01;
    double momentum = 0;
    double dampening = 0;
    bool nesterov = false;
    double weight_decay = 0;  // L2: added to the gradient
    bool first = false;       // the buffer starts as the gradient itself, undamped
    double grad_scale = 1;
    template <class Self, class V>
    static void visit(Self& s, V&& v) {
      v("lr", s.lr); v("momentum", s.momentum); v("dampening", s.dampening); v("nesterov", s.nesterov);
      v("weight_decay", s.weight_decay); v("first", s.first); v("grad_scale", s.grad_scale);
    }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static int overwrites(size_t output) { return output == 0 ? 0 : 2; }
  static std::vector<Sample> samples();
};

// param, grad, first moment, second moment, largest second moment (amsgrad only) -> param and the moments.
// Adam (Kingma & Ba 2015), AdamW with `decoupled` (Loshchilov & Hutter 2019), AMSGrad (Reddi et al. 2018).
struct AdamStep {
  static constexpr std::string_view name = "adam_step";
  static constexpr Precision precision = Precision::full;
  struct Attrs {
    double lr = 1e-3;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double eps = 1e-8;
    double weight_decay = 0;
    bool decoupled = false;  // decay the parameter itself, not through the gradient
    bool amsgrad = false;
    int64_t step = 1;  // counts from 1
    double grad_scale = 1;
    template <class Self, class V>
    static void visit(Self& s, V&& v) {
      v("lr", s.lr); v("beta1", s.beta1); v("beta2", s.beta2); v("eps", s.eps);
      v("weight_decay", s.weight_decay); v("decoupled", s.decoupled); v("amsgrad", s.amsgrad);
      v("step", s.step); v("grad_scale", s.grad_scale);
    }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static int overwrites(size_t output) { return output == 0 ? 0 : static_cast<int>(output) + 1; }
  static std::vector<Sample> samples();
};

// x -> f64 scalar: the sum of squares, accumulated in f64, for norms over many tensors.
struct SquaredNorm {
  static constexpr std::string_view name = "squared_norm";
  struct Attrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static std::vector<Sample> samples();
};

}  // namespace voxlab
