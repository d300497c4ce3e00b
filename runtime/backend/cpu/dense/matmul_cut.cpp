#include "runtime/backend/cpu/dense/matmul_cut.h"

#include <algorithm>
#include <utility>

#include "runtime/backend/cpu/dense/passes.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {

namespace {

// In cycles of a core, as measured on Sapphire Rapids: multiply-adds of whole vectors, B copied to panels, C turned.
double cost_of(const MatmulShape& s, int width) {
  constexpr double pack_cycles = 1.5, turn_cycles = 1.3;
  const auto m = static_cast<double>(s.m), n = static_cast<double>(s.n), k = static_cast<double>(s.k);
  const double vectors = static_cast<double>(ceil_div(s.n, width));
  return m * k * vectors / 2 + (s.b.col != 1 ? pack_cycles * k * n : 0) + (s.c.col != 1 ? turn_cycles * m * n : 0);
}

}  // namespace

void swap_sides(MatmulShape& s, Operands& o) {
  std::swap(s.m, s.n);
  std::swap(o.a, o.b);
  const MatrixStrides a = s.a;
  s.a = {s.b.col, s.b.row};
  s.b = {a.col, a.row};
  s.c = {s.c.col, s.c.row};
  for (BatchAxis& axis : s.batch) std::swap(axis.a, axis.b);
}

bool swapping_pays(const MatmulShape& s, int width) {
  MatmulShape swapped = s;
  Operands none = {};
  swap_sides(swapped, none);
  return cost_of(swapped, width) < cost_of(s, width);
}

void merge_batch_into_rows(MatmulShape& s) {
  for (int i = 2; i >= 0; --i) {
    BatchAxis& axis = s.batch[static_cast<size_t>(i)];
    if (axis.size == 1) continue;
    if (axis.b != 0 || axis.a != s.m * s.a.row || axis.c != s.m * s.c.row) return;
    s.m *= axis.size;
    axis = {};
  }
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
  const int64_t threads = thread_count();
  const int64_t batches = batch_count(s);
  Cut cut;
  if (s.k >= long_sum && s.k >= 8 * (s.m + s.n) && batches % threads != 0) {
    cut.k_parts = threads;  // little output: share the sum
    return cut;
  }
  cut.row_blocks = ceil_div(s.m, most_task_rows);
  if (cut.row_blocks == 1 && s.n > s.m && batches * panels >= threads) {
    // A wide B is not read again by other tasks. A may be, and copied by each where its columns lie apart.
    const int64_t wanted = threads == 1 || s.a.col != 1 ? threads : 4 * threads;
    cut.panel_groups = std::clamp<int64_t>(ceil_div(wanted, batches), 1, panels);
    return cut;
  }
  // As many blocks as give each thread its share, of 28 rows at least.
  const int64_t shared = ceil_div(ceil_div(batches * cut.row_blocks, threads) * threads, batches);
  cut.row_blocks = std::clamp(shared, cut.row_blocks, std::max(cut.row_blocks, s.m / 28));
  cut.panel_groups = std::clamp<int64_t>(ceil_div(threads, batches * cut.row_blocks), 1, panels);
  return cut;
}

}  // namespace voxlab::cpu
