// Ops that move values: strided copies with blocked transposition, bf16 conversion, joining,
// padding.
#include <cstring>

#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/driver.h"

namespace voxlab::cpu {
namespace {

// Element offsets of item `i` of the outer axes: {to, from}.
std::array<int64_t, 2> offsets(const std::vector<LoopAxis>& outer, int64_t i) {
  std::array<int64_t, 2> at{};
  for (size_t k = outer.size(); k-- > 0;) {
    at[0] += i % outer[k].size * outer[k].step[0];
    at[1] += i % outer[k].size * outer[k].step[1];
    i /= outer[k].size;
  }
  return at;
}

int64_t items(const std::vector<LoopAxis>& axes) {
  int64_t n = 1;
  for (const LoopAxis& axis : axes) n *= axis.size;
  return n;
}

// Rows dense on both sides.
void copy_rows(int64_t bytes, const std::vector<LoopAxis>& axes, const std::byte* from,
               std::byte* to) {
  const LoopAxis inner = axes.back();
  if (axes.size() == 1) {
    parallel_for(inner.size * bytes, grain_elements * 4, [&](int64_t begin, int64_t end) {
      std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
    });
    return;
  }
  const LoopAxis row = axes[axes.size() - 2];
  const std::vector<LoopAxis> outer(axes.begin(), axes.end() - 1);
  const auto copy = active_loops().copy_rows;
  parallel_for(items(outer), grain_rows(inner.size), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end;) {
      const int64_t count = std::min(end - r, row.size - r % row.size);
      const auto at = offsets(outer, r);
      copy(from + at[1] * bytes, to + at[0] * bytes, count, inner.size * bytes, row.step[1] * bytes,
           row.step[0] * bytes);
      r += count;
    }
  });
}

// to[c * to_pitch + r] = from[r * from_pitch + c], by squares that stay in L1.
template <class T>
void transpose_any(const T* from, int64_t rows, int64_t columns, int64_t from_pitch, T* to,
                   int64_t to_pitch) {
  constexpr int64_t side = 8;
  for (int64_t r0 = 0; r0 < rows; r0 += side)
    for (int64_t c0 = 0; c0 < columns; c0 += side)
      for (int64_t c = c0; c < std::min(columns, c0 + side); ++c)
        for (int64_t r = r0; r < std::min(rows, r0 + side); ++r)
          to[c * to_pitch + r] = from[r * from_pitch + c];
}

void transpose(int64_t bytes, const std::byte* from, int64_t rows, int64_t columns,
               int64_t from_pitch, std::byte* to, int64_t to_pitch) {
  const auto as = [&]<class T>(T) {
    transpose_any(reinterpret_cast<const T*>(from), rows, columns, from_pitch,
                  reinterpret_cast<T*>(to), to_pitch);
  };
  switch (bytes) {
    case 1:
      return as(uint8_t{});
    case 2:
      return as(uint16_t{});
    case 4:
      return active_kernels().transpose(reinterpret_cast<const float*>(from), rows, columns,
                                        from_pitch, reinterpret_cast<float*>(to), to_pitch);
    default:
      return as(uint64_t{});
  }
}

// The last axis is dense in `to`, axis `k` in `from`: squares of the two, the other axes outside.
void copy_transposed(int64_t bytes, const std::vector<LoopAxis>& axes, size_t k,
                     const std::byte* from, std::byte* to) {
  constexpr int64_t block = 256;
  const LoopAxis inner = axes.back(), dense = axes[k];
  std::vector<LoopAxis> outer(axes.begin(), axes.end() - 1);
  outer.erase(outer.begin() + static_cast<std::ptrdiff_t>(k));
  const int64_t blocks = ceil_divide(inner.size, block);
  const int64_t block_elements = std::min(inner.size, block) * dense.size;
  parallel_for(items(outer) * blocks, grain_rows(block_elements), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto at = offsets(outer, i / blocks);
      const int64_t first = i % blocks * block;
      transpose(bytes, from + (at[1] + first * inner.step[1]) * bytes,
                std::min(block, inner.size - first), dense.size, inner.step[1],
                to + (at[0] + first) * bytes, dense.step[0]);
    }
  });
}

template <class T>
void copy_elements(const std::vector<LoopAxis>& axes, const T* from, T* to) {
  const LoopAxis inner = axes.back();
  const std::vector<LoopAxis> outer(axes.begin(), axes.end() - 1);
  parallel_for(items(outer), grain_rows(inner.size), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto at = offsets(outer, i);
      for (int64_t j = 0; j < inner.size; ++j)
        to[at[0] + j * inner.step[0]] = from[at[1] + j * inner.step[1]];
    }
  });
}

// Bits of a padding value, or nothing for a dtype this backend does not fill.
bool fill_bits(DType dtype, double value, std::array<std::byte, 8>& bits) {
  bits = {};
  const auto set = [&](auto v) { std::memcpy(bits.data(), &v, sizeof v); };
  if (dtype == DType::f32) return set(static_cast<float>(value)), true;
  if (dtype == DType::bf16) return set(bfloat16(static_cast<float>(value))), true;
  return value == 0;
}

// `rows` stretches of `elements`, `pitch` apart.
void fill(std::byte* to, int64_t rows, int64_t elements, int64_t pitch, int64_t bytes,
          const std::array<std::byte, 8>& bits) {
  std::array<std::byte, 4096> pattern;  // a whole number of elements of any size
  for (size_t i = 0; i < pattern.size(); ++i) pattern[i] = bits[i % static_cast<size_t>(bytes)];
  const auto most = static_cast<int64_t>(pattern.size()), length = elements * bytes;
  const int64_t parts = ceil_divide(length, most);
  parallel_for(rows * parts, grain_rows(most / bytes), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i % parts * most;
      std::memcpy(to + i / parts * pitch * bytes + at, pattern.data(),
                  static_cast<size_t>(std::min(most, length - at)));
    }
  });
}

// Dense pieces whose rows lie side by side in `to`: a block of rows from all of them at a time, so
// that output lines are written while they are in cache.
void join_rows(const std::vector<int64_t>& row_bytes, int64_t rows, Pointers from, std::byte* to) {
  int64_t pitch = 0;
  for (int64_t bytes : row_bytes) pitch += bytes;
  const int64_t block = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, pitch));
  const auto copy = active_loops().copy_rows;
  parallel_for(rows, grain_rows(pitch / 4), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r += block) {
      std::byte* target = to + r * pitch;
      for (size_t i = 0; i < row_bytes.size(); ++i) {
        copy(from[i] + r * row_bytes[i], target, std::min(block, end - r), row_bytes[i],
             row_bytes[i], pitch);
        target += row_bytes[i];
      }
    }
  });
}

bool dense(const TensorDesc& t) {
  const Strides strides = contiguous_strides(t.shape());
  for (int i = 0; i < t.shape().rank(); ++i)
    if (t.shape()[i] != 1 && t.stride(i) != strides[static_cast<size_t>(i)]) return false;
  return true;
}

int64_t inner_elements(const Shape& shape, int axis) {
  int64_t n = 1;
  for (int i = shape.index(axis) + 1; i < shape.rank(); ++i) n *= shape[i];
  return n;
}

}  // namespace

void copy_strided(int64_t bytes, const std::vector<LoopAxis>& axes, const std::byte* from,
                  std::byte* to) {
  if (items(axes) == 0) return;
  const LoopAxis inner = axes.back();
  if (inner.step[0] == 1 && inner.step[1] == 1) return copy_rows(bytes, axes, from, to);
  if (inner.step[0] == 1 && inner.step[1] != 0)
    for (size_t k = axes.size() - 1; k-- > 0;)
      if (axes[k].step[1] == 1) return copy_transposed(bytes, axes, k, from, to);
  const auto as = [&]<class T>(T) {
    copy_elements(axes, reinterpret_cast<const T*>(from), reinterpret_cast<T*>(to));
  };
  switch (bytes) {
    case 1:
      return as(uint8_t{});
    case 2:
      return as(uint16_t{});
    case 4:
      return as(uint32_t{});
    default:
      return as(uint64_t{});
  }
}

Kernel prepare(const Contiguous::Attrs&, Descs in, Descs out) {
  const Strides dense = contiguous_strides(out[0].shape());
  return {.name = loop_name("contiguous"),
          .run = [bytes = size_of(in[0].dtype()),
                  axes = merge_axes(in[0].shape(), {dense, in[0].strides, dense})](
                     Pointers from, Pointers to, std::byte*) {
            copy_strided(bytes, axes, from[0], to[0]);
          }};
}

Kernel prepare(const Cast::Attrs& a, Descs in, Descs) {
  const DType from = in[0].dtype();
  const bool same = from == a.dtype;
  if (!same && (storage_of(from) < 0 || storage_of(a.dtype) < 0)) return {};
  const auto convert = from == DType::bf16 ? active_loops().widen : active_loops().narrow;
  return {.name = loop_name("cast", name(a.dtype)),
          .run = [=, n = in[0].numel(), from_bytes = size_of(from), to_bytes = size_of(a.dtype)](
                     Pointers x, Pointers y, std::byte*) {
            parallel_for(n, grain_elements, [&](int64_t begin, int64_t end) {
              const std::byte* source = x[0] + begin * from_bytes;
              std::byte* target = y[0] + begin * to_bytes;
              if (same) {
                std::memcpy(target, source, static_cast<size_t>((end - begin) * to_bytes));
              } else {
                convert(source, target, end - begin);
              }
            });
          }};
}

Kernel prepare(const Concat::Attrs& a, Descs in, Descs out) {
  struct Piece {
    std::vector<LoopAxis> axes;
    int64_t offset;
  };
  const int64_t bytes = size_of(out[0].dtype());
  const int64_t inner = inner_elements(out[0].shape(), a.axis),
                joined = out[0].shape()[a.axis] * inner;
  const int64_t rows = joined == 0 ? 0 : out[0].numel() / joined;
  if (rows > 1 && std::all_of(in.begin(), in.end(), dense)) {
    std::vector<int64_t> row_bytes;
    for (const TensorDesc& piece : in) row_bytes.push_back(piece.shape()[a.axis] * inner * bytes);
    return {
        .name = loop_name("concat", "rows"),
        .run = [rows, row_bytes = std::move(row_bytes)](Pointers from, Pointers to, std::byte*) {
          join_rows(row_bytes, rows, from, to[0]);
        }};
  }
  const Strides strides = contiguous_strides(out[0].shape());
  const auto axis = static_cast<size_t>(out[0].shape().index(a.axis));
  std::vector<Piece> pieces;
  int64_t before = 0;
  for (const TensorDesc& piece : in) {
    pieces.push_back({merge_axes(piece.shape(), {strides, piece.strides, strides}),
                      before * strides[axis] * bytes});
    before += piece.shape()[a.axis];
  }
  return {.name = loop_name("concat"),
          .run = [bytes, pieces = std::move(pieces)](Pointers from, Pointers to, std::byte*) {
            for (size_t i = 0; i < pieces.size(); ++i)
              copy_strided(bytes, pieces[i].axes, from[i], to[0] + pieces[i].offset);
          }};
}

Kernel prepare(const Pad::Attrs& a, Descs in, Descs out) {
  const int64_t bytes = size_of(in[0].dtype());
  std::array<std::byte, 8> bits;
  if (!fill_bits(in[0].dtype(), a.value, bits)) return {};
  const int64_t inner = inner_elements(in[0].shape(), a.axis);
  const int64_t before = a.before * inner, after = a.after * inner;
  const int64_t run = in[0].shape()[a.axis] * inner, row = before + run + after;
  const int64_t rows = row == 0 ? 0 : out[0].numel() / row;
  const Strides from{run, 1}, to{row, 1};
  return {.name = loop_name("pad"),
          .run = [=, axes = merge_axes(Shape{rows, run}, {to, from, to})](Pointers x, Pointers y,
                                                                          std::byte*) {
            fill(y[0], rows, before, row, bytes, bits);
            fill(y[0] + (before + run) * bytes, rows, after, row, bytes, bits);
            if (rows * run > 0) copy_strided(bytes, axes, x[0], y[0] + before * bytes);
          }};
}

}  // namespace voxlab::cpu
