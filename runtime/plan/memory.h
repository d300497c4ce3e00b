// Where the intermediate values of a plan lie in one block of memory.
#pragma once

#include <cstdint>
#include <vector>

namespace voxlab::plan {

// Bytes that are needed from step `first` to step `last`, both included.
struct Lifetime {
  int64_t bytes = 0;
  int first = 0, last = 0;
};

struct Layout {
  std::vector<int64_t> offsets;  // of each lifetime, multiples of 64
  int64_t bytes = 0;             // of the whole block
};

// Lifetimes that overlap in time never overlap in memory. The largest are placed first, each at the lowest
// offset that is free (Pisarchyk & Lee 2020, "Efficient Memory Management for Deep Neural Net Inference").
Layout lay_out(const std::vector<Lifetime>& lifetimes);

}  // namespace voxlab::plan
