#include "experiments/main/commands.h"
#include "runtime/core/parallel.h"

namespace voxlab {

void CommonOptions::apply() const {
  if (threads > 0) set_thread_count(threads);
}

}  // namespace voxlab
