// What attention and its gradient share: operands in any layout, blocks of query rows, and heads for the narrow kernels.
#pragma once

#include <optional>

#include "runtime/backend/cpu/dense/dense.h"
#include "runtime/backend/cpu/driver.h"

namespace voxlab::cpu {

// One operand: matrices over the leading axes of the output, a stride of 0 where it broadcasts.
struct Matrices {
  std::vector<int64_t> batch;
  MatrixStrides strides;

  int64_t offset(const Shape& leading, int64_t index) const;
};
Matrices matrices_of(const TensorDesc& t, const Shape& leading);
Shape leading_axes(const Shape& shape);  // all but the last two

struct Attention {
  Attention() = default;
  // Of q, k, v under these leading axes.
  Attention(const Shape& leading, const TensorDesc& q, const TensorDesc& k, const TensorDesc& v);

  // Query rows at a time: so many `arrays` of scores take a quarter of the cache, and there is work for every thread.
  int64_t block_rows(int64_t arrays) const;
  // Which kernel for narrow heads, if one.
  std::optional<size_t> narrow_form() const;
  // k and v of one batch for that kernel, 2 keys x depth.
  void pack(const float* k, const float* v, float* packed) const;

  Shape leading;
  int64_t batches = 0, queries = 0, depth = 0, keys = 0, width = 0;
  Matrices q, k, v, bias;
  MatrixStrides y;
  bool biased = false;
  std::optional<Dropout::Attrs> drop;
  Precision precision = Precision::strict;
};

// y = softmax(q k + bias) v on some rows of one matrix; `bias` points at that of the first row, or nowhere.
void attend(const Attention& a, const float* q, const float* k, const float* v, const float* bias, float* y, int64_t rows);

// What dropout makes of the weights of `rows` queries from `row` on, counted over all batches, laid out like the scores.
// `room` has place for them and drop_slack more.
constexpr int64_t drop_slack = 136;
const float* block_factors(const DropRule& rule, int64_t row, int64_t rows, int64_t keys, float* room);

// The rule of this call's step.
DropRule rule_of(const Attention& a, const std::byte* step);

inline ConstBuffer constant(const float* p) { return {p, DType::f32}; }
inline Buffer writable(float* p) { return {p, DType::f32}; }
inline float* floats(std::byte* p) { return reinterpret_cast<float*>(p); }

}  // namespace voxlab::cpu
