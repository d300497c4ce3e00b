// Dropout of elements, whole channels or whole samples (stochastic depth). The mask is a pure function
// of (seed, stream, step), so the backward pass draws it again instead of saving it.
#pragma once

#include "runtime/core/rng.h"
#include "runtime/ops/op.h"

namespace voxlab {

// Numbers are 16 bits, so that eight come from one block of Philox: p counts as the next multiple of 2^-16.

// What is dropped together: one value, one channel of one sample (Dropout2d, Dropout3d), one sample
// (DropPath, Huang et al. 2016).
enum class DropUnit : uint8_t { element, channel, sample };

constexpr auto enum_names(DropUnit) {
  return std::array{std::pair{std::string_view("element"), DropUnit::element},
                    std::pair{std::string_view("channel"), DropUnit::channel},
                    std::pair{std::string_view("sample"), DropUnit::sample}};
}

// x (N, ..., C), step i32 (1) -> x / (1 - p) where the unit's number is at least p, 0 elsewhere. The step is an input, not
// an attribute, so that one plan serves all steps.
struct Dropout {
  static constexpr std::string_view name = "dropout";
  struct Attrs {
    double p = 0.5;
    DropUnit unit = DropUnit::element;
    uint64_t seed = 0;
    uint32_t stream = 0;
    template <class Self, class V>
    static void visit(Self& s, V&& v) {
      v("p", s.p); v("unit", s.unit); v("seed", s.seed); v("stream", s.stream);
    }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 2}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
  // Factor of unit `i`: element index, n * C + c, or n.
  static double factor(const Attrs& a, const Philox& random, uint64_t i) {
    return random.half(i) * 0x1p-16 < a.p ? 0 : 1 / (1 - a.p);  // p = 1 drops everything: a number is less than 1
  }
};

Tensor dropout(const Tensor& x, const Tensor& step, const Dropout::Attrs& attrs);
// A step's number as that input.
Tensor step_number(int64_t step, Device device);

}  // namespace voxlab
