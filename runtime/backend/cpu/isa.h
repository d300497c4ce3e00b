// Which vector instruction set the CPU kernels run on: found once from CPUID, XCR0 and the kernel's
// AMX permission, changed by VOXLAB_ISA or, in tests, by an IsaScope.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace voxlab::cpu {

// Ordered: what a level runs on, the levels above it run on too. avx512_bf16 has products of bf16 vectors (and is
// detected where there is no AMX, on which machines these are slower than f32's). amx_emulated computes what AMX tiles would, in
// AVX-512: for tests on machines without AMX, never detected, only asked for.
enum class Isa : uint8_t { plain, avx2, avx512, avx512_bf16, amx_emulated, amx };

// Whether a level multiplies bf16 without widening it, and whether it does so in tiles.
constexpr bool multiplies_bf16(Isa isa) { return isa >= Isa::avx512_bf16; }
constexpr bool has_amx(Isa isa) { return isa >= Isa::amx_emulated; }

std::string_view name(Isa isa);

// Throws Error on an unknown name.
Isa parse_isa(std::string_view text);

// Every level this machine can run, the emulated one too, lowest first; `plain` is always there.
const std::vector<Isa>& available_isas();

// The level kernels use now: the innermost IsaScope, else VOXLAB_ISA, else the highest available.
// Throws Error when VOXLAB_ISA names an unknown level or one above the machine's.
Isa active_isa();

// Forces a level until the scope ends, for all threads; throws Error when the machine lacks it.
class IsaScope {
 public:
  explicit IsaScope(Isa isa);
  ~IsaScope();
  IsaScope(const IsaScope&) = delete;
  IsaScope& operator=(const IsaScope&) = delete;

 private:
  int previous_;
};

}  // namespace voxlab::cpu
