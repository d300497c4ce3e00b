// What the composition root says about the processor: the level of the kernels, its arithmetic, its peaks.
#include <string>

#include "runtime/backend/cpu/isa.h"
#include "runtime/backend/cpu/peaks.h"
#include "runtime/core/error.h"
#include "runtime/runtime.h"

namespace voxlab {

std::string_view cpu_isa_name() { return cpu::name(cpu::active_isa()); }

Arithmetic resolve(Arithmetic asked) {
  const bool amx = cpu::has_amx(cpu::active_isa());
  if (asked == Arithmetic::automatic) return amx ? Arithmetic::bf16x3 : Arithmetic::strict;
  if (asked == Arithmetic::bf16x3 && !amx)
    fail("precision", "bf16x3 needs AMX, and the CPU kernels run on " + std::string(cpu_isa_name()) +
                          " here; strict and bf16 run everywhere");
  return asked;
}

MachinePeaks machine_peaks() {
  const cpu::Peaks peaks = cpu::measure_peaks();
  return {.f32_gflops = peaks.f32_flops * 1e-9,
          .bf16_gflops = (peaks.bf16_flops > 0 ? peaks.bf16_flops : peaks.f32_flops) * 1e-9,
          .copy_gbytes_per_s = peaks.copy_bytes * 1e-9};
}

}  // namespace voxlab
