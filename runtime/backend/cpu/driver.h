// What the drivers of this folder share: the active loops, names for profiles, grain sizes, and
// strided loop nests brought to their fewest axes.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/backend/cpu/cpu.h"
#include "runtime/backend/cpu/loops.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {

// Loops for the active level; AMX machines run them on AVX-512.
const Loops& active_loops();

// "cpu.unary.gelu.avx512"
std::string loop_name(std::string_view op, std::string_view detail = {});

// Index into the tables' element types: 0 for f32, 1 for bf16, -1 when there are no loops.
int storage_of(DType dtype);
inline bool all_f32(Descs descs) {
  return std::all_of(descs.begin(), descs.end(),
                     [](const TensorDesc& d) { return !d.present || d.dtype() == DType::f32; });
}

// Elements worth a thread of their own: waking one costs as much as about 10 us of work.
constexpr int64_t grain_elements = 16384;
inline int64_t grain_rows(int64_t row_elements) {
  return std::max<int64_t>(1, grain_elements / std::max<int64_t>(1, row_elements));
}

DropRule drop_rule(const Dropout::Attrs& a, uint32_t step);

constexpr int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One axis of a loop nest over up to three arrays, steps in elements.
struct LoopAxis {
  int64_t size = 1;
  std::array<int64_t, 3> step{};
};

// Axes of `shape`, outermost first: those of size 1 dropped, neighbours joined where every array
// allows. At least one axis comes back.
std::vector<LoopAxis> merge_axes(const Shape& shape, const std::array<Strides, 3>& strides);

// Strides with which `operand` is read under the broadcast `shape`.
Strides broadcast_strides(const TensorDesc& operand, const Shape& shape);

// Copies elements of `bytes` each; step[0] of an axis belongs to `to`, step[1] to `from`. Runs
// parallel.
void copy_strided(int64_t bytes, const std::vector<LoopAxis>& axes, const std::byte* from,
                  std::byte* to);

// Narrow rows waste vector lanes, so columns loops take several rows as one: `repeat` rows of
// `columns` are a row of repeat * columns, and what is left over is a part of such a row.
struct WideRows {
  WideRows(int64_t rows, int64_t columns)
      : repeat(columns >= 64 ? 1 : std::max<int64_t>(1, std::min(ceil_divide(64, columns), rows))),
        rows(rows / repeat),
        width(repeat * columns),
        rest((rows % repeat) * columns) {}
  int64_t repeat, rows, width, rest;
};

// Adds rows * columns contiguous elements up by column, into `total`.
void add_columns(int kind, int storage, const void* x, int64_t rows, int64_t columns,
                 double* total);

inline float* floats(std::byte* p) { return reinterpret_cast<float*>(p); }

// Of an input that may be left out, or null.
inline const float* optional(Descs descs, Pointers in, size_t i) {
  return i < descs.size() && descs[i].present ? reinterpret_cast<const float*>(in[i]) : nullptr;
}

// All but the tensors at `typed` are f32; those may be bf16.
inline bool loops_read(Descs in, Descs out, std::initializer_list<size_t> typed, std::initializer_list<size_t> results = {0}) {
  const auto read = [](Descs descs, std::initializer_list<size_t> any) {
    for (size_t i = 0; i < descs.size(); ++i) {
      const bool of_any = std::find(any.begin(), any.end(), i) != any.end();
      if (descs[i].present && (of_any ? storage_of(descs[i].dtype()) < 0 : descs[i].dtype() != DType::f32)) return false;
    }
    return true;
  };
  return read(in, typed) && read(out, results);
}

}  // namespace voxlab::cpu
