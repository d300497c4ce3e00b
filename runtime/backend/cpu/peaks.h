// What this machine can do at most, measured: the floors that times are told against.
#pragma once

#include <cstdint>

namespace voxlab::cpu {

struct Peaks {
  double f32_flops = 0;   // of multiply-adds in registers, two a multiply-add, all threads, a second
  double bf16_flops = 0;  // of bf16 products summed in f32, from the first-level cache; 0: this level has none
  double copy_bytes = 0;  // read and written by a copy of 128 MiB, a second
};

// The best of several rounds of some milliseconds each, on the level and threads that kernels use.
Peaks measure_peaks();

}  // namespace voxlab::cpu
