// Elementwise functions of one tensor: activations and arithmetic.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

// affine is alpha x + beta; leaky_relu has slope alpha below zero; gelu is the exact one, x Phi(x)
// (Hendrycks & Gimpel 2016); hardswish is x relu6(x + 3) / 6 (Howard et al. 2019); step is x > 0.
enum class UnaryKind : uint8_t {
  affine, relu, leaky_relu, gelu, hardswish, sigmoid, tanh,
  exp, log, sqrt, rsqrt, square, abs, erf, reciprocal, step
};

constexpr auto enum_names(UnaryKind) {
  return std::array{std::pair{std::string_view("affine"), UnaryKind::affine},
                    std::pair{std::string_view("relu"), UnaryKind::relu},
                    std::pair{std::string_view("leaky_relu"), UnaryKind::leaky_relu},
                    std::pair{std::string_view("gelu"), UnaryKind::gelu},
                    std::pair{std::string_view("hardswish"), UnaryKind::hardswish},
                    std::pair{std::string_view("sigmoid"), UnaryKind::sigmoid},
                    std::pair{std::string_view("tanh"), UnaryKind::tanh},
                    std::pair{std::string_view("exp"), UnaryKind::exp},
                    std::pair{std::string_view("log"), UnaryKind::log},
                    std::pair{std::string_view("sqrt"), UnaryKind::sqrt},
                    std::pair{std::string_view("rsqrt"), UnaryKind::rsqrt},
                    std::pair{std::string_view("square"), UnaryKind::square},
                    std::pair{std::string_view("abs"), UnaryKind::abs},
                    std::pair{std::string_view("erf"), UnaryKind::erf},
                    std::pair{std::string_view("reciprocal"), UnaryKind::reciprocal},
                    std::pair{std::string_view("step"), UnaryKind::step}};
}

struct UnaryAttrs {
  UnaryKind kind = UnaryKind::affine;
  double alpha = 1;
  double beta = 0;
  template <class Self, class V>
  static void visit(Self& s, V&& v) { v("kind", s.kind); v("alpha", s.alpha); v("beta", s.beta); }
};

struct Unary {
  static constexpr std::string_view name = "unary";
  struct Attrs : UnaryAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// dx = f'(x) dout; inputs x, dout.
struct UnaryGrad {
  static constexpr std::string_view name = "unary_grad";
  struct Attrs : UnaryAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

Tensor unary(UnaryKind kind, const Tensor& x, double alpha = 1, double beta = 0);
Tensor scale(const Tensor& x, double factor);
Tensor affine(const Tensor& x, double factor, double offset);
Tensor square(const Tensor& x);
Tensor relu(const Tensor& x);
Tensor leaky_relu(const Tensor& x, double slope = 0.01);
Tensor gelu(const Tensor& x);
Tensor hardswish(const Tensor& x);
Tensor sigmoid(const Tensor& x);

}  // namespace voxlab
