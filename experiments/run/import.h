// Official checkpoints into ours: names through the network's key rules, axes through each parameter's
// source layout.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "nets/zoo.h"
#include "runtime/io/named_tensors.h"

namespace voxlab {

struct ImportReport {
  int64_t loaded = 0;
  std::vector<std::string> missing;     // our parameters that the file lacks
  std::vector<std::string> unexpected;  // the file's keys that the network has no place for
  std::vector<std::string> reshaped;    // "key: file's shape -> network's shape", same number of elements
  std::vector<std::string> ignored;     // counters, and second names of one tensor
  std::vector<std::string> skipped;     // partial only: "key: file's shape, the network needs shape"
};

// Puts every tensor of `source` (official names and axes) into the network. A shape with another number of
// elements is an Error that names the key, or, where the weights are `partial`, those of another task or input,
// skipped.
ImportReport import_tensors(Network& network, const NamedTensors& source, bool partial = false);

// Reads the checkpoint, imports it and writes our safetensors file (atomically).
ImportReport import_checkpoint(const NetConfig& config, const std::filesystem::path& input,
                               const std::filesystem::path& output, bool partial = false);

}  // namespace voxlab
