// Checkpoints written by torch.save: the zip format (torch 1.6 and later) and the legacy stream
// before it.
#pragma once

#include <filesystem>
#include <memory>

#include "runtime/io/named_tensors.h"
#include "runtime/io/value.h"

namespace voxlab {

class FileBytes;

struct TorchOptions {
  bool verify_crc = true;  // off only for archives written without checksums
};

// The whole content as plain values. Runs no code of the file: a fixed list of opcodes and globals
// is known, anything else is an Error that names it. Tensors are copied out of the file when they
// are asked for.
Value read_torch(const std::filesystem::path& path, const TorchOptions& options = {});
Value read_torch(std::shared_ptr<const FileBytes> file, const TorchOptions& options = {});

struct StateDictOptions {
  // Drop the "module." that nn.DataParallel puts before every name; only when all names have it.
  bool strip_module_prefix = false;
};

// The dictionary of named tensors in a checkpoint: the root itself, or the dictionary under one of
// the usual keys ("state_dict", "model", ...). Names that are tied to one view in the file share
// one Tensor.
NamedTensors state_dict(const Value& root, const StateDictOptions& options = {});

}  // namespace voxlab
