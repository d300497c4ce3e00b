// Queries of narrow heads, a lane each: their values turned and put back, what dropout makes of their weights. Included once
// per instruction set.
#pragma once

#include <algorithm>

#include "runtime/backend/cpu/dropout_impl.h"
#include "runtime/backend/cpu/loops.h"
#include "runtime/backend/cpu/vec_math.h"

namespace voxlab::cpu {
namespace {

// Queries [first, first + lanes) value by value; those beyond the last of `rows` repeat it.
template <int Depth, int64_t lanes>
void turn_queries(const QueryRows& q, int64_t first, int64_t rows, float* turned) {
  const int64_t count = std::min(lanes, rows - first);
  const float* from = q.at + first * q.row;
  if (q.row == 1 && count == lanes) {
    for (int64_t d = 0; d < Depth; ++d)
      for (int64_t lane = 0; lane < lanes; lane += vec_width) store(turned + d * lanes + lane, load(from + d * q.col + lane));
    return;
  }
  for (int64_t lane = 0; lane < lanes; ++lane) {
    const float* row = from + std::min(lane, count - 1) * q.row;
    for (int64_t d = 0; d < Depth; ++d) turned[d * lanes + lane] = row[d * q.col];
  }
}

// The first `count` of queries that lie value by value, as rows.
template <int Depth, int64_t lanes>
void put_queries(const float* turned, int64_t count, float* rows, int64_t row = Depth, int64_t col = 1) {
  for (int64_t lane = 0; lane < count; ++lane)
    for (int64_t d = 0; d < Depth; ++d) rows[lane * row + d * col] = turned[d * lanes + lane];
}

// What dropout makes of the weights of each lane's query: (keys, a vector of lanes), rows `pitch` floats apart.
inline void query_factors(const DropRule& rule, uint64_t first_block, int64_t keys, int64_t pitch, float* factors) {
  const auto of_a_query = static_cast<uint64_t>(keys / drop_block);
  Counters c = counters(first_block, [&](int lane) { return static_cast<uint64_t>(lane) * of_a_query; });
  for (int64_t key = 0; key < keys; key += drop_block) {
    const Blocks eight = blocks(rule, c);
    for (int j = 0; j < 4; ++j) put_factors(factors + (key + 2 * j) * pitch, pitch, eight.word[j], rule);
    c.even += 1;
    c.odd += 1;
  }
}

}  // namespace
}  // namespace voxlab::cpu
