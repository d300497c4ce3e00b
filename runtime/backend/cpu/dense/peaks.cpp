#include "runtime/backend/cpu/peaks.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "runtime/backend/cpu/dense/kernels_amx.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {
namespace {

// Seconds of the quickest of several runs of `work` on every thread at once.
double quickest(const std::function<void(int64_t thread)>& work) {
  constexpr int rounds = 12;
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    parallel_for(thread_count(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t thread = begin; thread < end; ++thread) work(thread);
    });
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

double f32_rate() {
  constexpr int64_t repeats = 1 << 18;
  const KernelTable& kernels = active_kernels();
  std::vector<float> sink(static_cast<size_t>(16 * thread_count()));
  const double seconds = quickest([&](int64_t thread) { sink[static_cast<size_t>(16 * thread)] += kernels.spin(repeats); });
  return 2.0 * static_cast<double>(repeats * spin_multiply_adds * kernels.width * thread_count()) / seconds;
}

#if defined(__x86_64__)
// Values of either sign between a half and one, all bits in motion: zeros draw so much less power that the processor
// multiplies them a quarter faster than what any network holds.
void fill_with_values(uint16_t* to, int64_t n) {
  std::minstd_rand random;
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<uint16_t>((random() >> 8 & 0x807fU) | 0x3f00U);
}

double bf16_rate() {
  constexpr int64_t depth = 8;  // 16 KiB each of A and B
  constexpr int64_t rows = amx_block_rows(2, true);
  constexpr int64_t repeats = 1 << 7, passes = 64;  // over A and B for each block of sums
  const AmxTable& kernels = active_amx();
  const double seconds = quickest([&](int64_t) {
    // On whole cache lines, as kernels hold them.
    uint16_t* a = half_scratch(Purpose::tile, rows * depth * amx_depth);
    uint16_t* b = half_scratch(Purpose::weights, 2 * depth * amx_tile);
    fill_with_values(a, rows * depth * amx_depth);
    fill_with_values(b, 2 * depth * amx_tile);
    const std::vector<Run> runs(passes, Run{0, 0});
    AmxBlockArgs args = {};
    args.a = {a, nullptr};
    args.a_step = depth * amx_depth * static_cast<int64_t>(sizeof(uint16_t));
    args.runs = runs.data();
    args.run_count = passes;
    args.depth_blocks = depth;
    args.last_pairs = amx_depth / 2;
    args.b = {b, nullptr};
    args.rows = rows;
    args.column_tiles = 2;
    args.c = scratch(Purpose::partial, rows * amx_block_columns);
    kernels.begin();
    for (int64_t i = 0; i < repeats; ++i) kernels.block(args);
    kernels.end();
  });
  const int64_t products = rows * 2 * amx_columns * depth * amx_depth * passes;
  return 2.0 * static_cast<double>(repeats * products * thread_count()) / seconds;
}
#endif

double copy_rate() {
  constexpr int64_t bytes = int64_t{128} << 20;
  const std::vector<char> from(static_cast<size_t>(bytes), 1);
  std::vector<char> to(static_cast<size_t>(bytes), 2);
  const int64_t part = bytes / thread_count();
  const double seconds = quickest(
      [&](int64_t thread) { std::memcpy(to.data() + thread * part, from.data() + thread * part, static_cast<size_t>(part)); });
  return 2.0 * static_cast<double>(part * thread_count()) / seconds;
}

}  // namespace

Peaks measure_peaks() {
  Peaks peaks = {.f32_flops = f32_rate(), .bf16_flops = 0, .copy_bytes = copy_rate()};
#if defined(__x86_64__)
  if (multiplies_bf16(active_isa())) peaks.bf16_flops = bf16_rate();
#endif
  return peaks;
}

}  // namespace voxlab::cpu
