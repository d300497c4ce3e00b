// Ops that only reinterpret memory: reshape, permute, split, slice, broadcast. They cost nothing.
#pragma once

#include <concepts>

#include "runtime/ops/op.h"

namespace voxlab {

struct Reshape {
  static constexpr std::string_view name = "reshape";
  static constexpr bool strided = true;
  struct Attrs {
    Shape shape;
    template <class Self, class V>
    static void visit(Self& s, V&& v) { v("shape", s.shape); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Tensors view(const Attrs&, const Tensor& x);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

struct Permute {
  static constexpr std::string_view name = "permute";
  static constexpr bool strided = true;
  struct Attrs {
    std::vector<int> axes;  // output axis i is input axis axes[i]
    template <class Self, class V>
    static void visit(Self& s, V&& v) { v("axes", s.axes); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Tensors view(const Attrs&, const Tensor& x);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// Cuts one axis into consecutive pieces.
struct Split {
  static constexpr std::string_view name = "split";
  static constexpr bool strided = true;
  struct Attrs {
    int axis = -1;
    std::vector<int64_t> sizes;
    template <class Self, class V>
    static void visit(Self& s, V&& v) { v("axis", s.axis); v("sizes", s.sizes); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Tensors view(const Attrs&, const Tensor& x);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// `length` elements of one axis from `start`, `step` apart.
struct Slice {
  static constexpr std::string_view name = "slice";
  static constexpr bool strided = true;
  struct Attrs {
    int axis = 0;
    int64_t start = 0;
    int64_t length = 1;
    int64_t step = 1;
    template <class Self, class V>
    static void visit(Self& s, V&& v) {
      v("axis", s.axis); v("start", s.start); v("length", s.length); v("step", s.step);
    }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Tensors view(const Attrs&, const Tensor& x);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// NumPy broadcasting to a larger shape; the repeated axes have stride 0.
struct Broadcast {
  static constexpr std::string_view name = "broadcast";
  static constexpr bool strided = true;
  struct Attrs {
    Shape shape;
    template <class Self, class V>
    static void visit(Self& s, V&& v) { v("shape", s.shape); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Tensors view(const Attrs&, const Tensor& x);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// One size may be -1: it is what remains. Copies only when strides do not allow a view.
Tensor reshape(const Tensor& x, std::vector<int64_t> sizes);
Tensor reshape_to(const Tensor& x, const Shape& shape);
template <std::same_as<Shape> S>  // a template, so that a braced list means the overload above
Tensor reshape(const Tensor& x, const S& shape) {
  return reshape_to(x, shape);
}
Tensor permute(const Tensor& x, std::vector<int> axes);
Tensor transpose(const Tensor& x);  // exchanges the last two axes
std::vector<int> transposed_axes(int rank);  // of that permutation; rank of at least two
Tensors split(const Tensor& x, int axis, std::vector<int64_t> sizes);
Tensor slice(const Tensor& x, int axis, int64_t start, int64_t length, int64_t step = 1);
Tensor broadcast_to(const Tensor& x, const Shape& shape);

}  // namespace voxlab
