// One pool for the whole process (OpenMP). Work is split by fixed rules, so that results depend on the
// number of threads only.
#pragma once

#include <cstdint>
#include <functional>

namespace voxlab {

int thread_count();
void set_thread_count(int threads);  // Error below 1

// Splits [0, n) into contiguous pieces of at least `grain`, at most one a thread, and calls
// body(begin, end) for each. Runs on the caller's thread when one piece is enough or when already
// inside a parallel region. An exception thrown by a piece is rethrown here.
void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

// The same, with the piece's number in [0, thread_count()), for per-thread scratch and partial sums.
void parallel_pieces(int64_t n, int64_t grain,
                     const std::function<void(int piece, int64_t begin, int64_t end)>& body);

}  // namespace voxlab
