// Elementwise arithmetic on two tensors, with NumPy broadcasting.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

enum class BinaryKind : uint8_t { add, sub, mul, div, equal };

constexpr auto enum_names(BinaryKind) {
  return std::array{std::pair{std::string_view("add"), BinaryKind::add},
                    std::pair{std::string_view("sub"), BinaryKind::sub},
                    std::pair{std::string_view("mul"), BinaryKind::mul},
                    std::pair{std::string_view("div"), BinaryKind::div},
                    std::pair{std::string_view("equal"), BinaryKind::equal}};
}

// equal gives 1 or 0 in the inputs' dtype and has no gradient.
struct Binary {
  static constexpr std::string_view name = "binary";
  static constexpr bool strided = true;
  struct Attrs {
    BinaryKind kind = BinaryKind::add;
    template <class Self, class V>
    static void visit(Self& s, V&& v) { v("kind", s.kind); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
Tensor equal(const Tensor& a, const Tensor& b);

}  // namespace voxlab
