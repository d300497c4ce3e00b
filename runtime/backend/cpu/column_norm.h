// What group, instance and batch norms share with convolutions that normalise as they read: moments by column, what
// follows from them, and the pass that applies it.
#pragma once

#include <vector>

#include "runtime/backend/cpu/driver.h"
#include "runtime/backend/cpu/moments.h"
#include "runtime/ops/norm.h"

namespace voxlab::cpu {

// Values of one of the types that loops read.
struct Values {
  const std::byte* data;
  DType dtype = DType::f32;
  Values from(int64_t element) const { return {data + element * size_of(dtype), dtype}; }
  float at(int64_t i) const {
    if (dtype == DType::bf16) return float(reinterpret_cast<const bfloat16*>(data)[i]);
    return reinterpret_cast<const float*>(data)[i];
  }
};

// Of the (position, width) matrix of one sample, by column; and from means and variances by column that are known.
std::vector<Moments> column_moments(const Values& x, int64_t rows, int64_t columns);
std::vector<Moments> known_moments(const float* mean_and_variance, int64_t rows, int64_t columns);

struct Affine {
  const float* weight;  // per column; null: 1
  const float* bias;    // null: 0
  double weight_at(int64_t c) const { return weight == nullptr ? 1 : weight[c]; }
  double bias_at(int64_t c) const { return bias == nullptr ? 0 : bias[c]; }
};

// Values per column, repeated for as many rows as a wide row holds.
struct ColumnValues {
  ColumnValues(const WideRows& wide) : v(static_cast<size_t>(wide.width)) {}
  void set(int64_t column, int64_t columns, double value) {
    for (auto i = static_cast<size_t>(column); i < v.size(); i += static_cast<size_t>(columns))
      v[i] = static_cast<float>(value);
  }
  std::vector<float> v;
};

// What normalises one sample, by column: y = (x - centre) * scale + shift.
struct Normaliser {
  explicit Normaliser(const WideRows& wide) : centre(wide), scale(wide), shift(wide) {}
  ColumnValues centre, scale, shift;
  FinishColumnsArgs::Column columns() const { return {centre.v.data(), scale.v.data(), shift.v.data()}; }
};

// Where they are given, `mean` and `spread` get the statistics of each group: spread is rstd, or the variance.
Normaliser normaliser_of(const NormGeometry& g, double eps, const std::vector<Moments>& columns, Affine affine,
                         float* mean = nullptr, float* spread = nullptr, bool store_variance = false);

// What lies `elements` further in a tensor of this type; null stays null.
inline const void* moved(const void* p, int storage, int64_t elements) {
  return p == nullptr ? p : static_cast<const std::byte*>(p) + elements * (storage == 0 ? 4 : 2);
}
inline void* moved(void* p, int storage, int64_t elements) {
  return const_cast<void*>(moved(static_cast<const void*>(p), storage, elements));
}

// In parallel: f(first row, rows, values of one), the part of a row that is left over last.
template <class F>
void for_wide_rows(const WideRows& wide, const F& f) {
  parallel_for(wide.rows, grain_rows(wide.width), [&](int64_t begin, int64_t end) { f(begin, end - begin, wide.width); });
  if (wide.rest > 0) f(wide.rows, 1, wide.rest);
}

// In parallel; x, residual and y of args are those of the first row.
void finish_wide_rows(const WideRows& wide, const FinishColumnsArgs& args);

}  // namespace voxlab::cpu
