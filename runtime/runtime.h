// The composition root: plugs the backends into the ops. Call once at the start of a program.
#pragma once

namespace voxlab {
void initialise_runtime();
}
