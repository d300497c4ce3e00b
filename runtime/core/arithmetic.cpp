#include "runtime/core/arithmetic.h"

#include "runtime/core/error.h"

namespace voxlab {
namespace {

thread_local Arithmetic current = Arithmetic::strict;

}  // namespace

Arithmetic current_arithmetic() { return current; }

ArithmeticScope::ArithmeticScope(Arithmetic arithmetic) : previous_(current) {
  if (arithmetic == Arithmetic::automatic) fail("precision", "auto must be resolved for the machine first");
  current = arithmetic;
}

ArithmeticScope::~ArithmeticScope() { current = previous_; }

}  // namespace voxlab
