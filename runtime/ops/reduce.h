// Sums, means and maxima over axes.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

enum class ReduceKind : uint8_t { sum, mean, max, sum_squares };

constexpr auto enum_names(ReduceKind) {
  return std::array{std::pair{std::string_view("sum"), ReduceKind::sum},
                    std::pair{std::string_view("mean"), ReduceKind::mean},
                    std::pair{std::string_view("max"), ReduceKind::max},
                    std::pair{std::string_view("sum_squares"), ReduceKind::sum_squares}};
}

struct Reduce {
  static constexpr std::string_view name = "reduce";
  struct Attrs {
    ReduceKind kind = ReduceKind::sum;
    std::vector<int> axes;  // empty: all
    bool keep = false;      // keep reduced axes with size 1
    template <class Self, class V>
    static void visit(Self& s, V&& v) { v("kind", s.kind); v("axes", s.axes); v("keep", s.keep); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&);
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// Which axes a Reduce of this rank removes, as a mask from the front.
std::array<bool, Shape::max_rank> reduced_axes(const Reduce::Attrs& a, const Shape& shape);

// Index of the largest value of the last axis; i32, without that axis. The first of equal values.
struct Argmax {
  static constexpr std::string_view name = "argmax";
  struct Attrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static std::vector<Sample> samples();
};

Tensor reduce(const Tensor& x, ReduceKind kind, std::vector<int> axes = {}, bool keep = false);
Tensor sum(const Tensor& x, std::vector<int> axes = {}, bool keep = false);
Tensor mean(const Tensor& x, std::vector<int> axes = {}, bool keep = false);
// The adjoint of broadcasting: sums over the axes that `shape` lacks or has with size 1.
Tensor sum_to(const Tensor& x, const Shape& shape);
Tensor argmax(const Tensor& x);

}  // namespace voxlab
