// Batched matrix product on arbitrary strides. Batch axes that only move A and C become rows,
// operands are copied only where their strides would defeat the tiles, and a long sum is shared by
// threads.
#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "runtime/backend/cpu/dense/gather_conv.h"
#include "runtime/backend/cpu/dense/passes.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {
namespace {

constexpr int64_t float_bytes = sizeof(float);
constexpr int64_t k_block = 512;  // rows of a B panel kept in cache under all rows of A

struct Operands {
  const float* a;
  const float* b;
  float* c;
};

// C^T = B^T A^T, for a C whose rows, not columns, are contiguous.
void swap_sides(MatmulShape& s, Operands& o) {
  std::swap(s.m, s.n);
  std::swap(o.a, o.b);
  const MatrixStrides a = s.a;
  s.a = {s.b.col, s.b.row};
  s.b = {a.col, a.row};
  s.c = {s.c.col, s.c.row};
  for (BatchAxis& axis : s.batch) std::swap(axis.a, axis.b);
}

int64_t batch_count(const MatmulShape& s) {
  return s.batch[0].size * s.batch[1].size * s.batch[2].size;
}

Operands at_batch(const MatmulShape& s, const Operands& o, int64_t index) {
  Operands at = o;
  for (int i = 2; i >= 0; --i) {
    const BatchAxis& axis = s.batch[static_cast<size_t>(i)];
    const int64_t j = index % axis.size;
    index /= axis.size;
    at.a += j * axis.a;
    at.b += j * axis.b;
    at.c += j * axis.c;
  }
  return at;
}

// How one product is cut: rows and sum into equal parts, columns into groups of panels.
struct Cut {
  int64_t row_blocks = 1;
  int64_t panel_groups = 1;
  int64_t k_parts = 1;
};

// One task of one matrix.
struct Task {
  int64_t row;
  int64_t rows;
  int64_t k_begin;
  int64_t k_end;
  int64_t panel_begin;
  int64_t panel_end;
};

int64_t share(int64_t total, int64_t part, int64_t parts) { return total * part / parts; }

Task task_at(const MatmulShape& s, const Cut& cut, int64_t panels, int64_t index) {
  const int64_t part = index % cut.k_parts;
  index /= cut.k_parts;
  const int64_t group = index % cut.panel_groups;
  const int64_t block = index / cut.panel_groups;
  // Even starts keep pairs whole.
  const int64_t pairs = ceil_div(s.m, 2);
  Task task;
  task.row = 2 * share(pairs, block, cut.row_blocks);
  task.rows = std::min(2 * share(pairs, block + 1, cut.row_blocks), s.m) - task.row;
  const int64_t k_pairs = ceil_div(s.k, 2);
  task.k_begin = std::min(2 * share(k_pairs, part, cut.k_parts), s.k);
  task.k_end = std::min(2 * share(k_pairs, part + 1, cut.k_parts), s.k);
  task.panel_begin = share(panels, group, cut.panel_groups);
  task.panel_end = share(panels, group + 1, cut.panel_groups);
  return task;
}

Cut choose_cut(const MatmulShape& s, int64_t panels) {
  constexpr int64_t long_sum = 4096;
  constexpr int64_t row_block = 168;  // a multiple of every tile height
  const int64_t threads = thread_count();
  const int64_t batches = batch_count(s);
  Cut cut;
  if (s.k >= long_sum && s.k >= 8 * (s.m + s.n) && batches % threads != 0) {
    cut.k_parts = threads;  // little output: share the sum
    return cut;
  }
  cut.row_blocks = ceil_div(s.m, row_block);
  const int64_t wanted = threads == 1 ? 1 : 4 * threads;
  if (batches * cut.row_blocks < wanted) {
    const int64_t most_rows = std::max<int64_t>(s.m / 28, 1);
    cut.row_blocks =
        std::clamp(ceil_div(wanted, batches), cut.row_blocks, std::max(cut.row_blocks, most_rows));
  }
  cut.panel_groups = std::clamp<int64_t>(ceil_div(wanted, batches * cut.row_blocks), 1, panels);
  return cut;
}

// B as the tiles want it: rows of one panel `pitch` apart.
struct PanelSource {
  const float* data;
  bool packed;
  const float* at(const MatmulShape& s, const Panel& panel, int64_t k, int64_t pitch) const {
    return packed ? data + panel.column * s.k + k * pitch : data + k * s.b.row + panel.column;
  }
  // The same of rows in pairs, always packed; k is even.
  const float* pairs_at(const MatmulShape& s, const Panel& panel, int64_t k, int64_t pitch) const {
    return data + panel.column * ceil_div(s.k, 2) + k / 2 * pitch;
  }
};

class MatmulWorker {
 public:
  MatmulWorker(const KernelTable& kernels, const PairTable* pairs, const MatmulShape& shape, const Epilogue& epilogue,
               const std::vector<Panel>& panels, const float* output)
      : kernels_(kernels), pairs_(pairs), s_(shape), epilogue_(epilogue), panels_(panels), output_(output) {}

  // `a` and `c` point at row 0 of the matrix; C rows are c_row apart.
  void run(const float* a, const PanelSource& b, float* c, int64_t c_row, const Task& task) {
    int64_t k = task.k_begin;
    do {
      const int64_t length = std::min(k_block, task.k_end - k);
      place_rows(a, task, k, length);
      for (int64_t p = task.panel_begin; p < task.panel_end; ++p) {
        run_panel(panels_[static_cast<size_t>(p)], b, c, c_row, task, k, length);
      }
      k += length;
    } while (k < task.k_end);
  }

 private:
  // Rows whose distance is a multiple of 4 KiB all compete for the same few cache lines.
  bool rows_collide() const {
    constexpr int64_t way = 1024;
    const int64_t far = s_.a.col == 1 ? s_.a.row : s_.a.col;
    return s_.n > 4 * kernels_.width && (far % way == 0 || (s_.a.col != 1 && s_.a.row != 1));
  }

  void place_rows(const float* a, const Task& task, int64_t k, int64_t length) {
    const float* from = a + task.row * s_.a.row + k * s_.a.col;
    if (pairs_ != nullptr) return place_pairs(from, task.rows, length);
    if (!rows_collide()) {
      a_ = from;
      a_row_ = s_.a.row;
      a_col_ = s_.a.col;
      return;
    }
    a_row_ = length + 16;
    a_col_ = 1;
    float* copy = scratch(Purpose::tile, task.rows * a_row_);
    if (s_.a.row == 1) {
      kernels_.transpose(from, length, task.rows, s_.a.col, copy, a_row_);
    } else {
      for (int64_t m = 0; m < task.rows; ++m) {
        for (int64_t i = 0; i < length; ++i)
          copy[m * a_row_ + i] = from[m * s_.a.row + i * s_.a.col];
      }
    }
    a_ = copy;
  }

  // Rows of bf16 in the places of half as many floats.
  void place_pairs(const float* from, int64_t rows, int64_t length) {
    a_row_ = ceil_div(length, 2) + 16;
    a_col_ = 1;
    float* copy = scratch(Purpose::tile, rows * a_row_);
    const float* whole = from;
    int64_t row = s_.a.row;
    if (s_.a.col != 1) {
      float* straight = scratch(Purpose::rows, rows * length);
      kernels_.transpose(from, length, rows, s_.a.col, straight, length);
      whole = straight;
      row = length;
    }
    for (int64_t m = 0; m < rows; ++m) {
      auto* to = reinterpret_cast<uint16_t*>(copy + m * a_row_);
      pairs_->round(whole + m * row, length, to);
      if (length % 2 != 0) to[length] = 0;
    }
    a_ = copy;
  }

  void run_panel(const Panel& panel, const PanelSource& b, float* c, int64_t c_row,
                 const Task& task, int64_t k, int64_t length) {
    const Run run = {0, 0};
    alignas(64) float dropped[max_panel_vectors * 16] = {};
    float* rows[max_tile_rows];
    const float* residual[max_tile_rows];
    int64_t offsets[max_pairs];
    const bool first = k == task.k_begin;
    const bool last = k + length >= task.k_end;
    const bool single = task.rows == 1;
    TileArgs args = {};
    args.a = reinterpret_cast<const char*>(a_);
    args.pair_bytes = offsets;
    args.pair_step = single ? 0 : a_row_ * float_bytes;
    args.k_step = a_col_ * float_bytes;
    args.runs = &run;
    args.run_count = length > 0 ? 1 : 0;
    args.k = pairs_ != nullptr ? ceil_div(length, 2) : length;
    args.ldb = b.packed ? panel.vectors * kernels_.width : s_.b.row;
    args.b = pairs_ != nullptr ? b.pairs_at(s_, panel, k, args.ldb) : b.at(s_, panel, k, args.ldb);
    args.c = rows;
    args.slope = epilogue_.slope;
    args.last_columns = panel.last_columns;
    args.accumulate = !first;
    args.bias = first && epilogue_.bias != nullptr ? epilogue_.bias + panel.column : nullptr;
    args.activation = last ? static_cast<int>(epilogue_.activation) : 0;
    args.residual = last && epilogue_.residual != nullptr ? residual : nullptr;
    const int64_t pairs = ceil_div(task.rows, 2);
    const int64_t tiles = ceil_div(pairs, kernels_.pairs[panel.vectors - 1]);
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t from = share(pairs, t, tiles);
      const int64_t to = share(pairs, t + 1, tiles);
      for (int64_t p = from; p < to; ++p) {
        // An odd count ends with a pair that repeats the row before and drops it.
        const bool odd_end = 2 * p + 1 == task.rows;
        const int64_t start = odd_end && !single ? 2 * p - 1 : 2 * p;
        float* row = c + (task.row + start) * c_row + panel.column;
        offsets[p - from] = start * a_row_ * float_bytes;
        rows[2 * (p - from)] = odd_end && !single ? dropped : row;
        rows[2 * (p - from) + 1] = single ? dropped : row + c_row;
        if (args.residual == nullptr) continue;
        const float* add = epilogue_.residual + (row - output_);  // lies as the output does
        residual[2 * (p - from)] = odd_end && !single ? nullptr : add;
        residual[2 * (p - from) + 1] = single ? nullptr : add + c_row;
      }
      (pairs_ != nullptr ? pairs_->tile : kernels_.tile)[panel.vectors - 1][to - from - 1](args);
    }
  }

  const KernelTable& kernels_;
  const PairTable* pairs_;
  const MatmulShape& s_;
  const Epilogue& epilogue_;
  const std::vector<Panel>& panels_;
  const float* output_;  // where the whole of C starts
  const float* a_ = nullptr;
  int64_t a_row_ = 0;
  int64_t a_col_ = 0;
};

// Copies one panel of B to rows of whole vectors.
void pack_panel(const KernelTable& kernels, const MatmulShape& s, const float* b,
                const Panel& panel, float* to) {
  const int64_t pitch = panel.vectors * kernels.width;
  const int64_t columns = (panel.vectors - 1) * kernels.width + panel.last_columns;
  const float* from = b + panel.column * s.b.col;
  if (s.b.row == 1) {
    kernels.transpose(from, columns, s.k, s.b.col, to, pitch);
    return;
  }
  for (int64_t k = 0; k < s.k; ++k) {
    for (int64_t n = 0; n < columns; ++n) to[k * pitch + n] = from[k * s.b.row + n * s.b.col];
  }
}

// The same in pairs of rows.
void pack_pairs(const KernelTable& kernels, const PairTable& pairs, const MatmulShape& s, const float* b,
                const Panel& panel, float* to) {
  const int64_t pitch = panel.vectors * kernels.width;
  const int64_t columns = (panel.vectors - 1) * kernels.width + panel.last_columns;
  if (s.b.col == 1) return pairs.pack(b + panel.column, s.k, columns, s.b.row, to, pitch);
  // Through a copy that stays in cache.
  float* rows = scratch(Purpose::rows, k_block * pitch);
  for (int64_t k = 0; k < s.k; k += k_block) {
    MatmulShape part = s;
    part.k = std::min(k_block, s.k - k);
    pack_panel(kernels, part, b + k * s.b.row, panel, rows);
    pairs.pack(rows, part.k, columns, pitch, to + k / 2 * pitch, pitch);
  }
}

// A broadcast B is packed once: axes on which it does not move count as one.
int64_t distinct_b(const MatmulShape& s, int64_t batch) {
  int64_t index = 0;
  int64_t scale = 1;
  for (int i = 2; i >= 0; --i) {
    const BatchAxis& axis = s.batch[static_cast<size_t>(i)];
    if (axis.b != 0) {
      index += batch % axis.size * scale;
      scale *= axis.size;
    }
    batch /= axis.size;
  }
  return index;
}

const float* pack_all(const KernelTable& kernels, const PairTable* pairs, const MatmulShape& s, const Operands& o,
                      const std::vector<Panel>& panels, int64_t matrix_floats) {
  const int64_t batches = batch_count(s);
  const int64_t matrices = distinct_b(s, batches - 1) + 1;
  float* packed = scratch(Purpose::panel, matrices * matrix_floats);
  std::vector<int64_t> first_batch(static_cast<size_t>(matrices), 0);
  for (int64_t i = batches - 1; i >= 0; --i) {
    first_batch[static_cast<size_t>(distinct_b(s, i))] = i;
  }
  const auto panel_count = static_cast<int64_t>(panels.size());
  const int64_t work = matrices * s.k * s.n * 16;  // a strided copy is worth many multiply-adds
  parallel_for(matrices * panel_count, task_grain(matrices * panel_count, work),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   const int64_t matrix = i / panel_count;
                   const Panel& panel = panels[static_cast<size_t>(i % panel_count)];
                   const float* from = at_batch(s, o, first_batch[static_cast<size_t>(matrix)]).b;
                   float* to = packed + matrix * matrix_floats;
                   if (pairs != nullptr) {
                     pack_pairs(kernels, *pairs, s, from, panel, to + panel.column * ceil_div(s.k, 2));
                   } else {
                     pack_panel(kernels, s, from, panel, to + panel.column * s.k);
                   }
                 }
               });
  return packed;
}

float activated(float x, const Epilogue& e) {
  switch (e.activation) {
    case Activation::none:
      break;
    case Activation::relu:
      return x < 0.0F ? 0.0F : x;
    case Activation::leaky_relu:
      return x < 0.0F ? e.slope * x : x;
    case Activation::gelu:
      return 0.5F * x * (1.0F + std::erf(x * 0.70710678F));
    case Activation::hardswish:
      return x * std::fmin(std::fmax(x + 3.0F, 0.0F), 6.0F) / 6.0F;
  }
  return x;
}

// C = epilogue(sum over parts), in part order.
void add_parts(const MatmulShape& s, const Operands& o, const float* partial, int64_t parts,
               const Epilogue& e) {
  const int64_t batches = batch_count(s);
  const int64_t matrix = s.m * s.n;
  const int64_t grain = std::max<int64_t>(1, 65536 / (s.n * parts));
  parallel_for(batches * s.m, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* c = at_batch(s, o, i / s.m).c + i % s.m * s.c.row;
      const float* sums = partial + i * s.n;
      for (int64_t n = 0; n < s.n; ++n) {
        float sum = e.bias == nullptr ? 0.0F : e.bias[n];
        for (int64_t p = 0; p < parts; ++p) sum += sums[p * batches * matrix + n];
        if (e.residual != nullptr) sum += e.residual[c + n * s.c.col - o.c];
        c[n * s.c.col] = activated(sum, e);
      }
    }
  });
}

}  // namespace

void merge_batch_into_rows(MatmulShape& s) {
  for (int i = 2; i >= 0; --i) {
    BatchAxis& axis = s.batch[static_cast<size_t>(i)];
    if (axis.size == 1) continue;
    if (axis.b != 0 || axis.a != s.m * s.a.row || axis.c != s.m * s.c.row) return;
    s.m *= axis.size;
    axis = {};
  }
}

void dense_matmul(const KernelTable& kernels, const MatmulShape& shape, const float* a,
                  const float* b, float* c, const Epilogue& epilogue, const PairTable* pairs) {
  MatmulShape s = shape;
  Operands o = {a, b, c};
  if (s.c.col != 1 && s.c.row == 1 && epilogue.bias == nullptr) swap_sides(s, o);
  merge_batch_into_rows(s);
  const int64_t batches = batch_count(s);
  if (batches * s.m * s.n == 0) return;
  const std::vector<Panel> panels = split_columns(s.n, kernels.width);
  const auto panel_count = static_cast<int64_t>(panels.size());
  const Cut cut = choose_cut(s, panel_count);
  // Rows of B far apart miss the TLB and collide in cache; enough rows of A pay for a packed copy.
  const bool pack = pairs != nullptr || s.b.col != 1 || (s.b.row >= 512 && s.m >= 96);
  const int64_t matrix_floats = ceil_div(s.n, kernels.width) * kernels.width * (pairs != nullptr ? ceil_div(s.k, 2) : s.k);
  const float* packed = pack ? pack_all(kernels, pairs, s, o, panels, matrix_floats) : nullptr;
  // C is written through a compact copy when its columns are strided or parts must be added.
  const bool indirect = s.c.col != 1 || cut.k_parts > 1;
  float* partial =
      indirect ? scratch(Purpose::partial, cut.k_parts * batches * s.m * s.n) : nullptr;
  const Epilogue direct_epilogue = indirect ? Epilogue{} : epilogue;
  const int64_t tasks = cut.row_blocks * cut.panel_groups * cut.k_parts;
  parallel_for(batches * tasks, task_grain(batches * tasks, batches * s.m * s.n * s.k),
               [&](int64_t begin, int64_t end) {
                 MatmulWorker worker(kernels, pairs, s, direct_epilogue, panels, o.c);
                 for (int64_t i = begin; i < end; ++i) {
                   const int64_t batch = i / tasks;
                   const Task task = task_at(s, cut, panel_count, i % tasks);
                   if (task.rows == 0) continue;
                   const Operands at = at_batch(s, o, batch);
                   const PanelSource source = {
                       pack ? packed + distinct_b(s, batch) * matrix_floats : at.b, pack};
                   if (indirect) {
                     const int64_t part = i % cut.k_parts;
                     worker.run(at.a, source, partial + (part * batches + batch) * s.m * s.n, s.n,
                                task);
                   } else {
                     worker.run(at.a, source, at.c, s.c.row, task);
                   }
                 }
               });
  if (indirect) add_parts(s, o, partial, cut.k_parts, epilogue);
}

}  // namespace voxlab::cpu
