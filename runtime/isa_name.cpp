#include "runtime/backend/cpu/isa.h"
#include "runtime/runtime.h"

namespace voxlab {

std::string_view cpu_isa_name() { return cpu::name(cpu::active_isa()); }

}  // namespace voxlab
