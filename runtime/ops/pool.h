// Average pooling over the spatial axes, and its adjoint.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

// One entry per spatial axis, or a single one for all of them.
struct AvgPoolAttrs {
  std::vector<int64_t> kernel{2};
  std::vector<int64_t> stride{2};
  std::vector<int64_t> padding{0};  // at most half the kernel, so that no window lies outside
  bool count_padding = true;        // divide by the whole window; false: by what of it lies inside
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("kernel", s.kernel);
    v("stride", s.stride);
    v("padding", s.padding);
    v("count_padding", s.count_padding);
  }
};

// Along one axis an output is `weight` times the sum of inputs [begin, end): windows are products
// of axes.
struct PoolWindow {
  int64_t begin = 0, end = 0;
  double weight = 1;
};
// The windows of spatial axis `axis` (from 0) between x and y = AvgPool(x).
std::vector<PoolWindow> pool_windows(const AvgPoolAttrs& a, const Shape& x, const Shape& y,
                                     int axis);

// x (N, spatial..., C) -> (N, size..., C), size = (in + 2 padding - kernel) / stride + 1; one to
// three spatial axes.
struct AvgPool {
  static constexpr std::string_view name = "avg_pool";
  struct Attrs : AvgPoolAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// The adjoint: dy (N, size..., C) -> dx (N, input..., C).
struct AvgPoolGrad {
  static constexpr std::string_view name = "avg_pool_grad";
  struct Attrs : AvgPoolAttrs {
    std::vector<int64_t> input;
    template <class Self, class V>
    static void visit(Self& s, V&& v) {
      AvgPoolAttrs::visit(s, v);
      v("input", s.input);
    }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

Tensor avg_pool(const Tensor& x, AvgPoolAttrs attrs = {});

}  // namespace voxlab
