// Resizing of the spatial axes by nearest or (bi-, tri-)linear interpolation, and its adjoint.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

enum class ResizeMode : uint8_t { nearest, linear };

constexpr auto enum_names(ResizeMode) {
  return std::array{std::pair{std::string_view("nearest"), ResizeMode::nearest},
                    std::pair{std::string_view("linear"), ResizeMode::linear}};
}

struct ResizeAttrs {
  std::vector<int64_t> size;  // of the spatial axes of the result
  ResizeMode mode = ResizeMode::linear;
  bool align_corners = false;  // linear only: the outermost samples of both grids coincide
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("size", s.size); v("mode", s.mode); v("align_corners", s.align_corners);
  }
};

// Along one axis an output is (1 - fraction) x[low] + fraction x[high]; nearest has low == high.
struct ResizeTap {
  int64_t low = 0, high = 0;
  double fraction = 0;
};
// PyTorch's index rules (aten/src/ATen/native/UpSample.h).
std::vector<ResizeTap> resize_taps(ResizeMode mode, bool align_corners, int64_t in, int64_t out);

// x (N, spatial..., C) -> (N, size..., C); one to three spatial axes.
struct Resize {
  static constexpr std::string_view name = "resize";
  struct Attrs : ResizeAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// The adjoint: dy (N, spatial..., C) of a Resize that read an input of spatial size `size` -> dx.
struct ResizeGrad {
  static constexpr std::string_view name = "resize_grad";
  struct Attrs : ResizeAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

Tensor resize(const Tensor& x, std::vector<int64_t> size, ResizeMode mode = ResizeMode::linear,
              bool align_corners = false);

}  // namespace voxlab
