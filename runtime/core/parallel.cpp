#include "runtime/core/parallel.h"

#include <omp.h>

#include <algorithm>
#include <exception>
#include <string>

#include "runtime/core/error.h"

namespace voxlab {
namespace {
int configured = 0;
}

int thread_count() { return configured > 0 ? configured : omp_get_max_threads(); }

void set_thread_count(int threads) {
  if (threads < 1) fail("threads", "expected at least 1, got " + std::to_string(threads));
  configured = threads;
}

void parallel_pieces(int64_t n, int64_t grain,
                     const std::function<void(int, int64_t, int64_t)>& body) {
  if (n <= 0) return;
  const int64_t most = std::max<int64_t>(1, n / std::max<int64_t>(1, grain));
  const int pieces = static_cast<int>(std::min<int64_t>(thread_count(), most));
  if (pieces == 1 || omp_in_parallel()) {
    body(0, 0, n);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel num_threads(pieces)
  {
    // OpenMP may grant fewer threads than asked: each takes every team-th piece.
    for (int piece = omp_get_thread_num(); piece < pieces; piece += omp_get_num_threads()) {
      try {
        body(piece, n * piece / pieces, n * (piece + 1) / pieces);
      } catch (...) {
#pragma omp critical(voxlab_parallel_error)
        if (!error) error = std::current_exception();
      }
    }
  }
  if (error) std::rethrow_exception(error);
}

void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  parallel_pieces(n, grain, [&](int, int64_t begin, int64_t end) { body(begin, end); });
}

}  // namespace voxlab
