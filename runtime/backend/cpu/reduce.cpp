// Sums, means, sums of squares and maxima over any axes, and argmax over the last one. Adjacent
// axes of a kind are one; each group of reduced axes, from the last to the first, is one step over
// x seen as (outer, size, inner).
#include <cstring>

#include "runtime/backend/cpu/driver.h"

namespace voxlab::cpu {
namespace {

static_assert(static_cast<int>(ReduceKind::sum) == 0 && static_cast<int>(ReduceKind::max) == 2 &&
              static_cast<int>(ReduceKind::sum_squares) == reduce_kinds - 1);

struct Step {
  int kind;
  int storage;  // of the input
  int64_t outer, size, inner;
  double factor;  // applied to the results
  int result_storage;
  int64_t elements() const { return outer * inner; }
};

double nothing(int kind) {
  return kind == static_cast<int>(ReduceKind::max) ? -__builtin_inf() : 0.0;
}

double merged(int kind, double a, double b) {
  return kind == static_cast<int>(ReduceKind::max) ? std::max(a, b) : a + b;
}

void put_result(const Step& s, std::byte* y, int64_t i, double value) {
  const auto v = static_cast<float>(value * s.factor);
  if (s.result_storage == 0) {
    reinterpret_cast<float*>(y)[i] = v;
  } else {
    reinterpret_cast<bfloat16*>(y)[i] = bfloat16(v);
  }
}

void reduce_rows(const Step& s, const std::byte* x, std::byte* y) {
  const auto total = active_loops().reduce_row[s.kind][s.storage];
  const int64_t bytes = s.storage == 0 ? 4 : 2;
  if (s.outer >= thread_count() || s.size < 2 * grain_elements) {
    parallel_for(s.outer, grain_rows(s.size), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o)
        put_result(s, y, o, total(x + o * s.size * bytes, s.size));
    });
    return;
  }
  std::vector<double> part(static_cast<size_t>(thread_count()));
  for (int64_t o = 0; o < s.outer; ++o) {
    std::fill(part.begin(), part.end(), nothing(s.kind));
    parallel_pieces(s.size, grain_elements, [&](int piece, int64_t begin, int64_t end) {
      part[static_cast<size_t>(piece)] = total(x + (o * s.size + begin) * bytes, end - begin);
    });
    double sum = nothing(s.kind);
    for (double p : part) sum = merged(s.kind, sum, p);
    put_result(s, y, o, sum);
  }
}

constexpr int64_t column_block = 512;

// Enough blocks of columns to share out: each is one thread's.
void reduce_column_blocks(const Step& s, const std::byte* x, std::byte* y) {
  const auto add = active_loops().reduce_columns[s.kind][s.storage];
  const int64_t bytes = s.storage == 0 ? 4 : 2, blocks = ceil_divide(s.inner, column_block);
  parallel_for(s.outer * blocks, grain_rows(s.size * std::min(s.inner, column_block)),
               [&](int64_t begin, int64_t end) {
                 std::array<double, column_block> total;
                 for (int64_t i = begin; i < end; ++i) {
                   const int64_t o = i / blocks, first = i % blocks * column_block;
                   const int64_t width = std::min(column_block, s.inner - first);
                   total.fill(nothing(s.kind));
                   const std::byte* block = x + (o * s.size * s.inner + first) * bytes;
                   if (blocks == 1) {
                     add_columns(s.kind, s.storage, block, s.size, s.inner, total.data());
                   } else {
                     add(block, s.size, width, s.inner, total.data());
                   }
                   for (int64_t c = 0; c < width; ++c)
                     put_result(s, y, o * s.inner + first + c, total[static_cast<size_t>(c)]);
                 }
               });
}

// Few columns and many rows: the rows are shared out, and the pieces' totals joined in order.
void reduce_split_columns(const Step& s, const std::byte* x, std::byte* y) {
  const int64_t bytes = s.storage == 0 ? 4 : 2;
  const auto threads = static_cast<size_t>(thread_count()), width = static_cast<size_t>(s.inner);
  std::vector<double> part(threads * width);
  for (int64_t o = 0; o < s.outer; ++o) {
    std::fill(part.begin(), part.end(), nothing(s.kind));
    parallel_pieces(s.size, grain_rows(s.inner), [&](int piece, int64_t begin, int64_t end) {
      add_columns(s.kind, s.storage, x + (o * s.size + begin) * s.inner * bytes, end - begin,
                  s.inner, part.data() + static_cast<size_t>(piece) * width);
    });
    for (size_t c = 0; c < width; ++c) {
      double sum = nothing(s.kind);
      for (size_t t = 0; t < threads; ++t) sum = merged(s.kind, sum, part[t * width + c]);
      put_result(s, y, o * s.inner + static_cast<int64_t>(c), sum);
    }
  }
}

void run_step(const Step& s, const std::byte* x, std::byte* y) {
  if (s.inner == 1) return reduce_rows(s, x, y);
  const int64_t blocks = s.outer * ceil_divide(s.inner, column_block);
  if (blocks >= thread_count() || s.size * s.inner < 2 * grain_elements) {
    reduce_column_blocks(s, x, y);
  } else {
    reduce_split_columns(s, x, y);
  }
}

std::vector<Step> plan_steps(const Reduce::Attrs& a, const Shape& shape, DType dtype, const Meta& result) {
  struct Group {
    int64_t size;
    bool reduced;
  };
  const auto reduced = reduced_axes(a, shape);
  std::vector<Group> groups;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] == 1) continue;
    const bool r = reduced[static_cast<size_t>(i)];
    if (groups.empty() || groups.back().reduced != r) groups.push_back({1, r});
    groups.back().size *= shape[i];
  }
  std::vector<Step> steps;
  for (size_t g = groups.size(); g-- > 0;) {
    if (!groups[g].reduced) continue;
    Step s{.kind = static_cast<int>(a.kind),
           .storage = 0,
           .outer = 1,
           .size = groups[g].size,
           .inner = 1,
           .factor = 1,
           .result_storage = 0};
    for (size_t i = 0; i < g; ++i) s.outer *= groups[i].size;
    for (size_t i = g + 1; i < groups.size(); ++i)
      if (!groups[i].reduced) s.inner *= groups[i].size;
    // Squares are taken once; the partial results are only added.
    if (!steps.empty() && a.kind == ReduceKind::sum_squares)
      s.kind = static_cast<int>(ReduceKind::sum);
    steps.push_back(s);
  }
  // Nothing to reduce still copies, squares or rounds: one element at a time.
  if (steps.empty()) steps.push_back({static_cast<int>(a.kind), 0, shape.numel(), 1, 1, 1, 0});
  steps.front().storage = storage_of(dtype);
  steps.back().result_storage = storage_of(result.dtype);
  if (a.kind == ReduceKind::mean)
    steps.back().factor = static_cast<double>(result.shape.numel()) / static_cast<double>(shape.numel());
  return steps;
}

template <class T>
void argmax_rows(const T* x, int32_t* y, int64_t rows, int64_t classes) {
  for (int64_t r = 0; r < rows; ++r, x += classes) {
    auto most = static_cast<float>(x[0]);
    int32_t best = 0;
    for (int64_t k = 1; k < classes; ++k) {
      const auto v = static_cast<float>(x[k]);
      best = v > most ? static_cast<int32_t>(k) : best;
      most = v > most ? v : most;
    }
    y[r] = best;
  }
}

}  // namespace

Kernel prepare(const Reduce::Attrs& a, Descs in, Descs out) {
  if (storage_of(in[0].dtype()) < 0 || storage_of(out[0].dtype()) < 0 || in[0].numel() == 0) return {};
  std::vector<Step> steps = plan_steps(a, in[0].shape(), in[0].dtype(), out[0].meta);
  // Intermediate results alternate between two halves of the workspace.
  const int64_t half = steps.size() < 2 ? 0 : ceil_divide(steps.front().elements() * 4, 64) * 64;
  return {.name = loop_name("reduce", to_string(a.kind)),
          .workspace = 2 * half,
          .run = [half, steps = std::move(steps)](Pointers x, Pointers y, std::byte* workspace) {
            const std::byte* from = x[0];
            for (size_t i = 0; i < steps.size(); ++i) {
              std::byte* to =
                  i + 1 == steps.size() ? y[0] : workspace + static_cast<int64_t>(i % 2) * half;
              run_step(steps[i], from, to);
              from = to;
            }
          },
          .narrows = true};
}

Kernel prepare(const Argmax::Attrs&, Descs in, Descs out) {
  const int storage = storage_of(in[0].dtype());
  if (storage < 0) return {};
  return {.name = "cpu.argmax",
          .run = [=, rows = out[0].numel(), classes = in[0].shape()[-1]](Pointers x, Pointers y,
                                                                         std::byte*) {
            parallel_for(rows, grain_rows(classes), [&](int64_t begin, int64_t end) {
              auto* best = reinterpret_cast<int32_t*>(y[0]) + begin;
              if (storage == 0) {
                argmax_rows(reinterpret_cast<const float*>(x[0]) + begin * classes, best,
                            end - begin, classes);
              } else {
                argmax_rows(reinterpret_cast<const bfloat16*>(x[0]) + begin * classes, best,
                            end - begin, classes);
              }
            });
          }};
}

}  // namespace voxlab::cpu
