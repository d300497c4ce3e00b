// What attention and its gradient share: operands in any layout, blocks of query rows, and heads for the narrow kernels.
#pragma once

#include <optional>
#include <string>

#include "runtime/backend/cpu/attention_tiles.h"
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

// Of heads a few values deep, for a number of keys.
struct NarrowKernels {
  void (*attend)(const NarrowAttentionArgs&);
  void (*gradients)(const NarrowAttentionGradArgs&);
  int64_t attend_floats, gradient_floats;  // of scratch
  const TileAttention* tiles;              // whose form they read keys and values in, or null
  int64_t packed_floats;                   // of keys and values
};

struct Attention {
  Attention() = default;
  // Of q, k, v under these leading axes.
  Attention(const Shape& leading, const TensorDesc& q, const TensorDesc& k, const TensorDesc& v);

  // Query rows at a time: so many `arrays` of scores take a quarter of the cache, and there is work for every thread.
  int64_t block_rows(int64_t arrays) const;
  // The kernels for narrow heads, if there are such.
  std::optional<NarrowKernels> narrow() const;

  Shape leading;
  int64_t batches = 0, queries = 0, depth = 0, keys = 0, width = 0;
  Matrices q, k, v, bias;
  MatrixStrides y;
  bool biased = false;
  std::optional<Dropout::Attrs> drop;
  Precision precision = Precision::strict;
};

// Their name in profiles.
std::string narrow_name(std::string_view op, const Attention& a, const NarrowKernels& kernels);

// k and v of one matrix as the narrow kernels read them.
struct PackedHead {
  const float *k, *v;
  const uint16_t* tiles;
};
PackedHead pack_head(const Attention& a, const NarrowKernels& kernels, const float* k, const float* v, float* packed);

// y = softmax(q k) v on some rows of one matrix, by narrow kernels or without.
void attend(const Attention& a, const NarrowKernels& kernels, const float* q, const PackedHead& head, float* y, int64_t rows);
void attend(const Attention& a, const float* q, const float* k, const float* v, float* y, int64_t rows);

// What dropout makes of the weights of `rows` queries from `row` on, counted over all batches, laid out like the scores.
// `room` has place for them and drop_slack more.
constexpr int64_t drop_slack = 136;
const float* block_factors(const DropRule& rule, int64_t row, int64_t rows, int64_t keys, float* room);

// The rule of this call's step.
DropRule rule_of(const Attention& a, const std::byte* step);

inline ConstBuffer constant(const float* p) { return {p, DType::f32}; }
inline Buffer writable(float* p) { return {p, DType::f32}; }

}  // namespace voxlab::cpu
