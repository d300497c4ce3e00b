// The composition root: plugs the backends into the ops. Call once at the start of a program.
#pragma once

#include <string_view>

namespace voxlab {
void initialise_runtime();

// The vector level that the CPU kernels use now: "plain", "avx2", "avx512" or "amx".
std::string_view cpu_isa_name();
}
