// How a matrix product is laid out and cut for the tiles of f32: which side is A, how rows, columns and the sum fall into
// tasks.
#pragma once

#include <cstdint>

#include "runtime/backend/cpu/dense/dense.h"

namespace voxlab::cpu {

struct Operands {
  const float* a;
  const float* b;
  float* c;
};

// C^T = B^T A^T.
void swap_sides(MatmulShape& s, Operands& o);
// Whether the product costs less that way.
bool swapping_pays(const MatmulShape& s, int width);

int64_t batch_count(const MatmulShape& s);
Operands at_batch(const MatmulShape& s, const Operands& o, int64_t index);
// A broadcast B counts once: axes on which it does not move count as one.
int64_t distinct_b(const MatmulShape& s, int64_t batch);

constexpr int64_t most_task_rows = 168;  // where rows are cut at all; a multiple of every tile height

// How one product is cut: rows and sum into equal parts, columns into groups of panels.
struct Cut {
  int64_t row_blocks = 1;
  int64_t panel_groups = 1;
  int64_t k_parts = 1;
};
Cut choose_cut(const MatmulShape& s, int64_t panels);

// One task of one matrix.
struct Task {
  int64_t row;
  int64_t rows;
  int64_t k_begin;
  int64_t k_end;
  int64_t panel_begin;
  int64_t panel_end;
};
Task task_at(const MatmulShape& s, const Cut& cut, int64_t panels, int64_t index);

}  // namespace voxlab::cpu
