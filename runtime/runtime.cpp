#include "runtime/runtime.h"

#include "runtime/backend/cpu/cpu.h"
#include "runtime/backend/ref/ref.h"

namespace voxlab {

void initialise_runtime() {
  ref::install();
  cpu::install();
}

}  // namespace voxlab
