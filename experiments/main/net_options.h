// The network that a command line describes.
#pragma once

#include "experiments/main/commands.h"
#include "nets/zoo.h"

namespace voxlab {

// --net/--variant's preset, then the file's table, then every --set, each over the one before. Error when
// nothing names a network.
NetConfig resolve_net(const NetOptions& options);

}  // namespace voxlab
