// Batched matrix product on arbitrary strides. Batch axes that only move A and C become rows, the sides change places where
// that saves copies, operands are copied only where their strides would defeat the tiles, and a long sum is shared by
// threads.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "runtime/backend/cpu/dense/gather_conv.h"
#include "runtime/backend/cpu/dense/matmul_cut.h"
#include "runtime/backend/cpu/dense/passes.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {
namespace {

constexpr int64_t float_bytes = sizeof(float);
constexpr int64_t k_block = 512;  // rows of a B panel kept in cache under all rows of A

// Where the tiles find B.
enum class BForm : uint8_t {
  direct,  // where it lies
  packed,  // in panels copied before, all of them
  own,     // in panels that each task copies for itself, for no other reads them
};

struct PanelSource {
  const float* data;
  BForm form;
  const float* at(const MatmulShape& s, const Panel& panel, int64_t k, int64_t pitch) const {
    return form == BForm::packed ? data + panel.column * s.k + k * pitch : data + k * s.b.row + panel.column * s.b.col;
  }
  // The same of rows in pairs, always packed; k is even.
  const float* pairs_at(const MatmulShape& s, const Panel& panel, int64_t k, int64_t pitch) const {
    return data + panel.column * ceil_div(s.k, 2) + k / 2 * pitch;
  }
};

// What tasks write: C, or a part of it with a place of its own.
struct Target {
  float* data;
  int64_t pitch;  // between rows
  int64_t first_row = 0, first_column = 0;
  bool past_caches = false;  // written so
  float* at(int64_t row, int64_t column) const { return data + (row - first_row) * pitch + column - first_column; }
};

// out[c * out_pitch + r] = in[r * in_pitch + c]
void turn(const KernelTable& kernels, const float* in, int64_t rows, int64_t cols, int64_t in_pitch, float* out, int64_t out_pitch) {
  const int64_t most = rows_collide(in_pitch) ? l1_ways : rows;
  for (int64_t r = 0; r < rows; r += most)
    kernels.transpose(in + r * in_pitch, std::min(most, rows - r), cols, in_pitch, out + r, out_pitch);
}

// Copies `length` rows of one panel of B to rows of whole vectors; `from`: its first value.
void pack_panel(const KernelTable& kernels, const MatmulShape& s, const float* from, int64_t length, const Panel& panel, float* to) {
  constexpr int64_t ahead = 8;  // rows that are fetched while others are copied
  const int64_t pitch = panel.vectors * kernels.width;
  const int64_t columns = columns_of(panel, panel, kernels.width);
  if (s.b.row == 1) return turn(kernels, from, columns, length, s.b.col, to, pitch);
  for (int64_t k = 0; k < length; ++k, from += s.b.row, to += pitch) {
    if (s.b.col == 1) {
      for (int64_t n = 0; n < columns; n += 16) __builtin_prefetch(from + ahead * s.b.row + n);
      std::memcpy(to, from, static_cast<size_t>(columns) * sizeof(float));
    } else {
      for (int64_t n = 0; n < columns; ++n) to[n] = from[n * s.b.col];
    }
  }
}

class MatmulWorker {
 public:
  MatmulWorker(const KernelTable& kernels, const PairTable* pairs, const MatmulShape& shape, const Epilogue& epilogue,
               const std::vector<Panel>& panels, const float* output)
      : kernels_(kernels), pairs_(pairs), s_(shape), epilogue_(epilogue), panels_(panels), output_(output) {}

  // `a` points at row 0 of the matrix.
  void run(const float* a, const PanelSource& b, const Target& c, const Task& task) {
    const bool once = b.form == BForm::direct && task.rows == s_.m;  // B is read once, from memory
    const int64_t most_k = b.form == BForm::own || once ? own_k_block : k_block;
    int64_t k = task.k_begin;
    do {
      const int64_t length = std::min(most_k, task.k_end - k);
      // The first block's rows are fetched with rows that come 16 before them, those of the next with the tiles of this one.
      b_ahead_ = once && k == task.k_begin && length >= 2 * rows_ahead ? rows_ahead * s_.b.row : 0;
      ahead_ = {};
      if (once && k + length < task.k_end) fetch_ahead(a, b, task, k + length, std::min(most_k, task.k_end - k - length));
      // Even strips of whole tiles.
      const int64_t tile = 2 * kernels_.pairs[panels_.front().vectors - 1];
      const int64_t strip = ceil_div(ceil_div(task.rows, ceil_div(task.rows, strip_rows(b.form, length))), tile) * tile;
      for (int64_t row = 0; row < task.rows; row += strip) {
        Task part = task;
        part.row += row;
        part.rows = std::min(strip, task.rows - row);
        place_rows(a, part, k, length);
        for (int64_t p = task.panel_begin; p < task.panel_end; ++p)
          run_panel(panels_[static_cast<size_t>(p)], b, c, part, k, length, p == task.panel_begin && !copied_);
      }
      k += length;
    } while (k < task.k_end);
  }

  // The same to a C whose rows, not columns, are neighbours: as many panels at a time as stay in the cache.
  void run_turned(const float* a, const PanelSource& b, float* c, const Task& task) {
    const int64_t most = max_panel_vectors * kernels_.width;
    const int64_t together = std::max<int64_t>(1, l2_bytes() / 4 / float_bytes / (task.rows * most));
    for (int64_t p = task.panel_begin; p < task.panel_end; p += together) {
      Task part = task;
      part.panel_begin = p;
      part.panel_end = std::min(p + together, task.panel_end);
      const Panel &first = panels_[static_cast<size_t>(p)], &last = panels_[static_cast<size_t>(part.panel_end - 1)];
      const int64_t columns = columns_of(first, last, kernels_.width);
      const int64_t pitch = ceil_div(columns, kernels_.width) * kernels_.width;
      float* sums = scratch(Purpose::partial, task.rows * pitch);
      run(a, b, {sums, pitch, task.row, first.column}, part);
      kernels_.transpose(sums, task.rows, columns, pitch, c + task.row + first.column * s_.c.col, s_.c.col);
    }
  }

 private:
  static constexpr int64_t own_k_block = 256, rows_ahead = 16;

  // Rows of A that meet all panels before others do: few where B is small, so that C is written row by row.
  int64_t strip_rows(BForm form, int64_t length) const {
    constexpr int64_t few = 56, small = 16384;  // floats
    return form != BForm::own && length * s_.n <= small ? few : most_task_rows;
  }

  // Whether a copy of A's rows pays: they compete, or their values lie apart.
  bool copies_rows(int64_t length) const {
    if (s_.a.col == 1) return rows_collide(s_.a.row) && s_.n > kernels_.width;
    const bool fits = length <= lines_kept(s_.a.col) / 2;  // the other half is B's
    if (s_.n > 4 * kernels_.width) return s_.a.row != 1 || !fits;
    return s_.n > 2 * kernels_.width && length > 64 && !fits;
  }

  void place_rows(const float* a, const Task& task, int64_t k, int64_t length) {
    const float* from = a + task.row * s_.a.row + k * s_.a.col;
    copied_ = pairs_ != nullptr || copies_rows(length);
    if (pairs_ != nullptr) return place_pairs(from, task.rows, length);
    if (!copied_) {
      a_ = from;
      a_row_ = s_.a.row;
      a_col_ = s_.a.col;
      return;
    }
    a_row_ = length + 16;
    a_col_ = 1;
    float* copy = scratch(Purpose::tile, task.rows * a_row_);
    a_ = copy;
    if (s_.a.row == 1) return turn(kernels_, from, length, task.rows, s_.a.col, copy, a_row_);
    for (int64_t m = 0; m < task.rows; ++m, from += s_.a.row, copy += a_row_) {
      if (s_.a.col == 1) {
        std::memcpy(copy, from, static_cast<size_t>(length) * sizeof(float));
      } else {
        for (int64_t i = 0; i < length; ++i) copy[i] = from[i * s_.a.col];
      }
    }
  }

  // As bf16: rows in the places of half as many floats, or where rows are neighbours, pairs of each two values of k.
  void place_pairs(const float* from, int64_t rows, int64_t length) {
    const bool neighbours = s_.a.col != 1;
    a_row_ = neighbours ? 1 : ceil_div(length, 2) + 16;
    a_col_ = neighbours ? ceil_div(rows, 16) * 16 : 1;
    float* copy = scratch(Purpose::tile, neighbours ? ceil_div(length, 2) * a_col_ : rows * a_row_);
    a_ = copy;
    if (neighbours) return pairs_->pack(from, length, rows, s_.a.col, copy, a_col_);
    for (int64_t m = 0; m < rows; ++m) {
      auto* to = reinterpret_cast<uint16_t*>(copy + m * a_row_);
      pairs_->round(from + m * s_.a.row, length, to);
      if (length % 2 != 0) to[length] = 0;
    }
  }

  // `fresh`: nobody has read A's rows yet.
  void run_panel(const Panel& panel, const PanelSource& b, const Target& c, const Task& task, int64_t k, int64_t length, bool fresh) {
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
    args.ldb = b.form == BForm::direct ? s_.b.row : panel.vectors * kernels_.width;
    args.b = pairs_ != nullptr ? b.pairs_at(s_, panel, k, args.ldb) : b.at(s_, panel, k, args.ldb);
    args.b_ahead = b_ahead_;
    if (b.form == BForm::own) {
      float* packed = scratch(Purpose::panel, length * args.ldb);
      pack_panel(kernels_, s_, args.b, length, panel, packed);
      args.b = packed;
    }
    args.c = rows;
    args.slope = epilogue_.slope;
    args.last_columns = panel.last_columns;
    args.accumulate = !first;
    args.bias = first && epilogue_.bias != nullptr ? epilogue_.bias + panel.column : nullptr;
    args.activation = last ? static_cast<int>(epilogue_.activation) : 0;
    args.residual = last && epilogue_.residual != nullptr ? residual : nullptr;
    args.past_caches = c.past_caches && first && last;
    const int64_t pairs = ceil_div(task.rows, 2);
    const int64_t tiles = ceil_div(pairs, kernels_.pairs[panel.vectors - 1]);
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t from = share(pairs, t, tiles);
      const int64_t to = share(pairs, t + 1, tiles);
      for (int64_t p = from; p < to; ++p) {
        // An odd count ends with a pair that repeats the row before and drops it.
        const bool odd_end = 2 * p + 1 == task.rows;
        const int64_t start = odd_end && !single ? 2 * p - 1 : 2 * p;
        float* row = c.at(task.row + start, panel.column);
        offsets[p - from] = start * a_row_ * float_bytes;
        rows[2 * (p - from)] = odd_end && !single ? dropped : row;
        rows[2 * (p - from) + 1] = single ? dropped : row + c.pitch;
        if (args.residual == nullptr) continue;
        const float* add = epilogue_.residual + (row - output_);  // lies as the output does
        residual[2 * (p - from)] = odd_end && !single ? nullptr : add;
        residual[2 * (p - from) + 1] = single ? nullptr : add + c.pitch;
      }
      if (fresh && a_col_ == 1) {
        // Those of the next tile are asked for. Not in a function of its own, which GCC drops.
        for (int64_t row = 2 * to; row < std::min(2 * to + 2 * (to - from), s_.m - task.row); ++row)
          for (int64_t i = 0; i < length; i += line_floats) __builtin_prefetch(a_ + row * a_row_ + i, 0, 2);
      }
      for (Ahead& operand : ahead_) operand.fetch_some();
      (pairs_ != nullptr ? pairs_->tile : kernels_.tile)[panel.vectors - 1][to - from - 1](args);
    }
  }

  // Rows of an operand that the next block of k reads, fetched a few lines with each tile.
  struct Ahead {
    const float* row = nullptr;
    int64_t rows = 0, pitch = 0, lines = 0;  // lines of each row
    int64_t lines_a_tile = 0, line = 0;
    void fetch_some() {
      for (int64_t i = 0; i < lines_a_tile && rows > 0; ++i) {
        __builtin_prefetch(row + line * line_floats, 0, 2);
        if (++line < lines) continue;
        line = 0;
        row += pitch;
        --rows;
      }
    }
  };
  void fetch_ahead(const float* a, const PanelSource& b, const Task& task, int64_t k, int64_t length) {
    const Panel &first = panels_[static_cast<size_t>(task.panel_begin)], &last = panels_[static_cast<size_t>(task.panel_end - 1)];
    const int64_t columns = columns_of(first, last, kernels_.width);
    const int64_t tiles = (task.panel_end - task.panel_begin) * ceil_div(task.rows, 2 * kernels_.pairs[first.vectors - 1]);
    a += task.row * s_.a.row + k * s_.a.col;
    const bool by_rows = s_.a.col == 1;
    ahead_ = {{{.row = b.at(s_, first, k, s_.b.row), .rows = length, .pitch = s_.b.row, .lines = ceil_div(columns, line_floats)},
               {.row = a,
                .rows = by_rows ? task.rows : length,
                .pitch = by_rows ? s_.a.row : s_.a.col,
                .lines = ceil_div(by_rows ? length : task.rows, line_floats)}}};
    for (Ahead& operand : ahead_) operand.lines_a_tile = ceil_div(operand.rows * operand.lines, tiles);
  }

  const KernelTable& kernels_;
  const PairTable* pairs_;
  const MatmulShape& s_;
  const Epilogue& epilogue_;
  const std::vector<Panel>& panels_;
  const float* output_;  // where the whole of C starts
  const float* a_ = nullptr;
  int64_t a_row_ = 0;
  std::array<Ahead, 2> ahead_;
  int64_t b_ahead_ = 0;  // of TileArgs
  int64_t a_col_ = 0;
  bool copied_ = false;  // A's rows
};

// Copies one panel of B to pairs of rows.
void pack_pairs(const KernelTable& kernels, const PairTable& pairs, const MatmulShape& s, const float* b,
                const Panel& panel, float* to) {
  const int64_t pitch = panel.vectors * kernels.width;
  const int64_t columns = columns_of(panel, panel, kernels.width);
  if (s.b.col == 1) return pairs.pack(b + panel.column, s.k, columns, s.b.row, to, pitch);
  // Through a copy that stays in cache.
  float* rows = scratch(Purpose::rows, k_block * pitch);
  for (int64_t k = 0; k < s.k; k += k_block) {
    const int64_t length = std::min(k_block, s.k - k);
    pack_panel(kernels, s, b + k * s.b.row + panel.column * s.b.col, length, panel, rows);
    pairs.pack(rows, length, columns, pitch, to + k / 2 * pitch, pitch);
  }
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
                     pack_panel(kernels, s, from + panel.column * s.b.col, s.k, panel, to + panel.column * s.k);
                   }
                 }
               });
  return packed;
}

BForm form_of_b(const MatmulShape& s, const Cut& cut, bool pairs) {
  if (pairs) return BForm::packed;
  const int64_t batches = batch_count(s);
  const bool read_once = cut.row_blocks == 1 && s.m <= most_task_rows && distinct_b(s, batches - 1) + 1 == batches;
  // Rows of B far apart miss the TLB and collide in cache; enough rows of A pay for a packed copy.
  const int64_t enough = read_once && rows_collide(s.b.row) ? 28 : 96;
  if (s.b.col == 1 && (s.b.row < 512 || s.m < enough)) return BForm::direct;
  return read_once ? BForm::own : BForm::packed;
}

// Whether C is too large for the caches, or not wanted there, so that writing past them saves reading its lines first;
// vectors must lie in one line each.
bool goes_past_caches(const MatmulShape& s, const float* c, bool far, const Epilogue& e) {
  bool aligned = reinterpret_cast<uintptr_t>(c) % (line_floats * sizeof(float)) == 0 && s.c.row % line_floats == 0;
  for (const BatchAxis& axis : s.batch) aligned = aligned && axis.c % line_floats == 0;
  const bool large = far || batch_count(s) * s.m * s.n * float_bytes >= far_bytes();
  return aligned && e.activation == Activation::none && large;
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

void dense_matmul(const KernelTable& kernels, const MatmulShape& shape, const float* a,
                  const float* b, Buffer c, const Epilogue& epilogue, const PairTable* pairs) {
  MatmulShape s = shape;
  Operands o = {a, b, static_cast<float*>(c.data)};
  const bool plain = epilogue.bias == nullptr && epilogue.residual == nullptr && epilogue.activation == Activation::none;
  const bool rows_of_c = s.c.col != 1 && s.c.row == 1 && epilogue.bias == nullptr;
  if (plain && pairs == nullptr ? swapping_pays(s, kernels.width) : rows_of_c) swap_sides(s, o);
  merge_batch_into_rows(s);
  const int64_t batches = batch_count(s);
  if (batches * s.m * s.n == 0) return;
  const std::vector<Panel> panels = split_columns(s.n, kernels.width);
  const auto panel_count = static_cast<int64_t>(panels.size());
  const Cut cut = choose_cut(s, panel_count);
  const BForm form = form_of_b(s, cut, pairs != nullptr);
  const int64_t matrix_floats = ceil_div(s.n, kernels.width) * kernels.width * (pairs != nullptr ? ceil_div(s.k, 2) : s.k);
  const float* packed = form == BForm::packed ? pack_all(kernels, pairs, s, o, panels, matrix_floats) : nullptr;
  // C is written through a compact copy when its columns are strided or parts must be added.
  const bool turned = plain && s.c.col != 1 && s.c.row == 1 && cut.k_parts == 1;
  const bool indirect = !turned && (s.c.col != 1 || cut.k_parts > 1);
  const bool past_caches = !turned && !indirect && goes_past_caches(s, o.c, c.far, epilogue);
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
                       form == BForm::packed ? packed + distinct_b(s, batch) * matrix_floats : at.b, form};
                   if (indirect) {
                     const int64_t part = i % cut.k_parts;
                     worker.run(at.a, source, {partial + (part * batches + batch) * s.m * s.n, s.n}, task);
                   } else if (turned) {
                     worker.run_turned(at.a, source, at.c, task);
                   } else {
                     worker.run(at.a, source, {.data = at.c, .pitch = s.c.row, .past_caches = past_caches}, task);
                   }
                 }
                 // Such stores wait for nothing else.
                 if (past_caches) std::atomic_thread_fence(std::memory_order_seq_cst);
               });
  if (indirect) add_parts(s, o, partial, cut.k_parts, epilogue);
}

}  // namespace voxlab::cpu
