// Rows of a table by index: the relative-position bias tables of attention.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

// table (R, rest...), index i32 (shape...) -> (shape..., rest...).
struct Gather {
  static constexpr std::string_view name = "gather";
  struct Attrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Saves saves(const Attrs&) { return {.inputs = 2}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// dy (shape..., rest...), index (shape...) -> dtable (rows, rest...): rows that an index names several
// times add up, in the order of the index.
struct GatherGrad {
  static constexpr std::string_view name = "gather_grad";
  struct Attrs {
    int64_t rows = 1;
    template <class Self, class V>
    static void visit(Self& s, V&& v) { v("rows", s.rows); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 2}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// An index as a kernel must read it: Error when it is not in [0, rows).
int64_t checked_row(std::string_view op, int64_t index, int64_t rows);

Tensor gather(const Tensor& table, const Tensor& index);

}  // namespace voxlab
