// Dropout of single elements: Philox4x32-10 (core/rng.h) on sixteen counters at a time. Included once per
// instruction set.
#pragma once

#include "runtime/backend/cpu/loops.h"
#include "runtime/backend/cpu/vec_math.h"

namespace voxlab::cpu {
namespace {

constexpr int drop_lanes = 16;

// bits[4 l + j] is word j of the block at counter first + l.
inline void philox_lanes(const DropArgs& args, uint64_t first, uint32_t* bits) {
  uint32_t c0[drop_lanes], c1[drop_lanes], c2[drop_lanes], c3[drop_lanes];
  for (int l = 0; l < drop_lanes; ++l) {
    const uint64_t counter = first + static_cast<uint64_t>(l);
    c0[l] = static_cast<uint32_t>(counter);
    c1[l] = static_cast<uint32_t>(counter >> 32);
    c2[l] = args.stream;
    c3[l] = args.step;
  }
  uint32_t k0 = args.key[0], k1 = args.key[1];
  for (int round = 0; round < 10; ++round) {
    for (int l = 0; l < drop_lanes; ++l) {
      const uint64_t p0 = uint64_t{0xD2511F53} * c0[l], p1 = uint64_t{0xCD9E8D57} * c2[l];
      c0[l] = static_cast<uint32_t>(p1 >> 32) ^ c1[l] ^ k0;
      c1[l] = static_cast<uint32_t>(p1);
      c2[l] = static_cast<uint32_t>(p0 >> 32) ^ c3[l] ^ k1;
      c3[l] = static_cast<uint32_t>(p0);
    }
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  for (int l = 0; l < drop_lanes; ++l) {
    bits[4 * l] = c0[l];
    bits[4 * l + 1] = c1[l];
    bits[4 * l + 2] = c2[l];
    bits[4 * l + 3] = c3[l];
  }
}

// Elements [4 begin, min(4 end, n)); an element is kept where its bits are at least `limit`.
template <class T>
void drop_loop(const DropArgs& args) {
  const T* x = static_cast<const T*>(args.x);
  T* y = static_cast<T*>(args.y);
  uint32_t bits[4 * drop_lanes];
  for (int64_t block = args.begin; block < args.end; block += drop_lanes) {
    philox_lanes(args, static_cast<uint64_t>(block), bits);
    const int64_t at = 4 * block, stop = 4 * args.end < args.n ? 4 * args.end : args.n;
    const int64_t count = stop - at < 4 * drop_lanes ? stop - at : 4 * drop_lanes;
    float factor[4 * drop_lanes];
    for (int i = 0; i < 4 * drop_lanes; ++i) factor[i] = bits[i] >= args.limit ? args.factor : 0.0F;
    for_vectors(count, [&](int64_t i, auto lanes) {
      const Vec keep_factor = get(factor + i, lanes);
      // Selected, not multiplied: a dropped infinity is 0.
      put(y + at + i, keep_factor != zero() ? get(x + at + i, lanes) * keep_factor : zero(), lanes);
    });
  }
}

constexpr void set_dropout(Loops& table) {
  table.drop[0] = drop_loop<float>;
  table.drop[1] = drop_loop<uint16_t>;
}

}  // namespace
}  // namespace voxlab::cpu
