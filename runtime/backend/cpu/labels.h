// What losses ask of their labels before any loop indexes by them.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "runtime/backend/cpu/driver.h"
#include "runtime/ops/loss.h"

namespace voxlab::cpu {

// No label equals an index that i32 cannot hold; -1 does then, for total_weight has refused it.
inline int32_t narrow_ignore(int64_t ignore) {
  return ignore < std::numeric_limits<int32_t>::min() || ignore > std::numeric_limits<int32_t>::max()
             ? -1
             : static_cast<int32_t>(ignore);
}

// f(piece, begin, end) over rows, results added in the order of the pieces.
template <class F>
double sum_pieces(int64_t rows, int64_t row_elements, F f) {
  std::vector<double> part(static_cast<size_t>(thread_count()));
  parallel_pieces(rows, grain_rows(row_elements), [&](int piece, int64_t begin, int64_t end) {
    part[static_cast<size_t>(piece)] = f(begin, end);
  });
  double total = 0;
  for (double p : part) total += p;
  return total;
}

// Checks the labels and adds the weights of those that count.
inline double total_weight(std::string_view op, const int32_t* labels, int64_t rows, int64_t classes, int64_t ignore, const float* weight) {
  return sum_pieces(rows, 4, [&](int64_t begin, int64_t end) {
    if (weight == nullptr && ignore == narrow_ignore(ignore)) {
      // Vectors of labels; what is wrong is left to the loop below.
      const auto most = static_cast<uint32_t>(classes);
      const auto skipped = static_cast<int32_t>(ignore);
      int64_t counted = 0;
      uint32_t wrong = 0;
      for (int64_t r = begin; r < end;) {
        uint32_t some = 0;
        for (const int64_t to = std::min(end, r + (int64_t{1} << 20)); r < to; ++r) {
          const uint32_t counts = labels[r] != skipped ? 1 : 0;
          some += counts;
          wrong |= static_cast<uint32_t>(labels[r]) >= most ? counts : 0;
        }
        counted += some;
      }
      if (wrong == 0) return static_cast<double>(counted);
    }
    double total = 0;
    for (int64_t r = begin; r < end; ++r) {
      if (labels[r] == ignore) continue;
      const int64_t label = checked_class(op, labels[r], classes);
      total += weight == nullptr ? 1.0F : weight[label];
    }
    return total;
  });
}

}  // namespace voxlab::cpu
