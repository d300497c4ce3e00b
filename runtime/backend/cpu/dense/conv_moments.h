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
