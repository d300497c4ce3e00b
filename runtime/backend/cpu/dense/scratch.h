// Buffers the dense kernels reuse between calls, one set a thread; and small helpers of the
// drivers.
#pragma once

#include <array>
#include <cstdint>

#include "runtime/backend/cpu/dense/dense.h"
#include "runtime/backend/cpu/dense/kernels.h"
#include "runtime/backend/cpu/isa.h"

namespace voxlab::cpu {

// What a buffer is for: one call never holds two buffers of the same purpose on one thread.
enum class Purpose : uint8_t {
  tile,
  weights,
  partial,
  panel,
  rows,
  input_a,
  input_b,
  output,
  queries,
  scores,
  residual,
  joined,
  deep,
  turned,
  count
};

// At least `floats` floats, 64-byte aligned, contents unspecified; stays valid until this thread
// asks again for the same purpose.
float* scratch(Purpose purpose, int64_t floats);

// First-level cache: how many rows of that distance, in floats, find room in it, a line of each.
constexpr int64_t line_floats = 16, l1_ways = 8;
int64_t lines_kept(int64_t pitch);

// Rows whose distance is a multiple of 4 KiB all compete for the same few cache lines.
inline bool rows_collide(int64_t pitch) { return lines_kept(pitch) == l1_ways; }

// Second-level cache of this machine in bytes, or a safe guess.
int64_t l2_bytes();

// From this size on a tensor is not in the caches when somebody reads it next: four second-level caches a thread.
int64_t far_bytes();

// Kernels for the active level; AMX machines run their f32 work on AVX-512.
const KernelTable& active_kernels();

// Kernels on pairs of bf16; null where the active level has none, or has tiles.
const PairTable* active_pairs();

// Name of an implementation at the active level, for profiles.
enum class KernelKind : uint8_t { conv, depthwise, channel_scale, matmul, winograd, winograd3 };
std::string_view kernel_name(KernelKind kind, bool bf16);
std::string_view amx_name(KernelKind kind, bool split);  // of products of bf16

// Grain for parallel_for over `tasks`: all of them on the caller's thread when the whole takes less
// time than waking a second one (some ten microseconds).
inline int64_t task_grain(int64_t tasks, int64_t multiply_adds) {
  constexpr int64_t small = int64_t{1} << 20;
  return multiply_adds < small && tasks > 0 ? tasks : 1;
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
// Where part `part` of `parts` about equal ones begins.
constexpr int64_t share(int64_t total, int64_t part, int64_t parts) { return total * part / parts; }

// bf16 values in a float buffer.
inline uint16_t* half_scratch(Purpose purpose, int64_t halves) {
  return reinterpret_cast<uint16_t*>(scratch(purpose, ceil_div(halves, 2)));
}

constexpr int64_t product(const std::array<int64_t, 3>& t) { return t[0] * t[1] * t[2]; }

}  // namespace voxlab::cpu
