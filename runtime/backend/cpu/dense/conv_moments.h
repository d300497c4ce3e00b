// Mean and variance of what a convolution writes, by sample and channel, added up while it is stored.
#pragma once

#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

namespace voxlab::cpu {

// What one thread has seen. Values are taken less a pivot, their column's first value, so that sums of squares keep their
// digits.
struct MomentSums {
  explicit MomentSums(size_t columns) : pivot(columns), count(columns), sum(columns), square(columns) {}
  std::vector<float> pivot;
  std::vector<double> count, sum, square;

  // Counts `values` more of each of `columns` columns and tells the store where their sums are; whether they are the first,
  // so that the pivots are still to be set.
  template <class StoreArgs>
  bool count_more(size_t first, int64_t columns, int64_t values, StoreArgs& args) {
    const bool begins = count[first] == 0;
    for (int64_t i = 0; i < columns; ++i) count[first + static_cast<size_t>(i)] += static_cast<double>(values);
    args.pivot = pivot.data() + first;
    args.sum = sum.data() + first;
    args.square = square.data() + first;
    return begins;
  }
};

// Those of all threads, in the order of the blocks that they began with, whichever ended first.
class MomentParts {
 public:
  void add(int64_t first_block, MomentSums sums) {
    const std::lock_guard lock(mutex_);
    parts_.emplace_back(first_block, std::move(sums));
  }
  // (column, 2): mean and variance.
  void write(float* to);

 private:
  std::mutex mutex_;
  std::vector<std::pair<int64_t, MomentSums>> parts_;
};

}  // namespace voxlab::cpu
