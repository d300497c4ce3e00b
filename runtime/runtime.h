// The composition root: plugs the backends into the ops. Call once at the start of a program.
#pragma once

#include <string_view>

#include "runtime/core/arithmetic.h"

namespace voxlab {
void initialise_runtime();

// The vector level that the CPU kernels use now: "plain", "avx2", "avx512", "avx512_bf16" or "amx".
std::string_view cpu_isa_name();

// The arithmetic that runs here: for `automatic` bf16x3 where the CPU kernels use AMX, else strict. Error for
// bf16x3 where they do not: plain f32 never runs under another name.
Arithmetic resolve(Arithmetic asked);

// What this machine's processor can do at most with the threads in use, measured in half a second.
struct MachinePeaks {
  double f32_gflops = 0;   // two flops a multiply-add
  double bf16_gflops = 0;  // f32 sums; where no kernel multiplies bf16, the f32 figure
  double copy_gbytes_per_s = 0;
};
MachinePeaks machine_peaks();

}  // namespace voxlab
