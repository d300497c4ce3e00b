// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011). Every number is a pure function of (seed, stream, step, index).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace voxlab {

std::array<uint32_t, 4> philox4x32_10(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

class Philox {
 public:
  Philox(uint64_t seed, uint32_t stream = 0, uint32_t step = 0)
      : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
        stream_(stream),
        step_(step) {}

  // 128 random bits of block `i`.
  std::array<uint32_t, 4> block(uint64_t i) const {
    return philox4x32_10({static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32), stream_, step_},
                         key_);
  }
  uint32_t bits(uint64_t i) const { return block(i / 4)[i % 4]; }
  // 16 bits, eight numbers a block.
  uint32_t half(uint64_t i) const { return block(i / 8)[i % 8 / 2] >> (i % 2 * 16) & 0xffffU; }
  double uniform(uint64_t i) const { return bits(i) * 0x1p-32; }  // [0, 1)
  // Integer in [0, n), n < 2^32; the bias of at most n/2^32 is of no consequence here.
  int64_t below(uint64_t i, int64_t n) const {
    return static_cast<int64_t>((static_cast<uint64_t>(bits(i)) * static_cast<uint64_t>(n)) >> 32);
  }
  // Standard normal by Box-Muller on the pair of numbers that index `i` belongs to.
  double normal(uint64_t i) const {
    const auto b = block(i / 2);
    const size_t at = (i % 2) * 2;
    const double u = (b[at] + 1.0) * 0x1p-32;  // (0, 1]
    return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * b[at + 1] * 0x1p-32);
  }

 private:
  std::array<uint32_t, 2> key_;
  uint32_t stream_;
  uint32_t step_;
};

}  // namespace voxlab
