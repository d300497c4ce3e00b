// Which vector instruction set the CPU kernels run on: found once from CPUID, XCR0 and the kernel's
// AMX permission, lowered by VOXLAB_ISA=plain|avx2|avx512|amx or, in tests, by an IsaScope.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace voxlab::cpu {

// Ordered: a machine that has one level has all levels below it.
enum class Isa : uint8_t { plain, avx2, avx512, amx };

std::string_view name(Isa isa);

// Throws Error on an unknown name.
Isa parse_isa(std::string_view text);

// Every level this machine can run, lowest first; `plain` is always there.
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
