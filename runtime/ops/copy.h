// Ops that move values: contiguous, cast, concat, pad.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

// The same values, row-major in memory. Made explicit so that a copy shows in a profile.
struct Contiguous {
  static constexpr std::string_view name = "contiguous";
  static constexpr bool strided = true;
  struct Attrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

struct Cast {
  static constexpr std::string_view name = "cast";
  struct Attrs {
    DType dtype = DType::f32;
    template <class Self, class V>
    static void visit(Self& s, V&& v) { v("dtype", s.dtype); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// Joins tensors of equal shape but for `axis`. Inputs may be strided.
struct Concat {
  static constexpr std::string_view name = "concat";
  static constexpr bool strided = true;
  struct Attrs {
    int axis = -1;
    template <class Self, class V>
    static void visit(Self& s, V&& v) { v("axis", s.axis); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// `before` and `after` elements of `value` around one axis.
struct Pad {
  static constexpr std::string_view name = "pad";
  struct Attrs {
    int axis = 0;
    int64_t before = 0;
    int64_t after = 0;
    double value = 0;
    template <class Self, class V>
    static void visit(Self& s, V&& v) {
      v("axis", s.axis); v("before", s.before); v("after", s.after); v("value", s.value);
    }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

Tensor contiguous(const Tensor& x);
Tensor cast(const Tensor& x, DType dtype);
Tensor concat(const Tensors& pieces, int axis);
Tensor pad(const Tensor& x, int axis, int64_t before, int64_t after, double value = 0);

}  // namespace voxlab
