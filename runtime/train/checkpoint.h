// Checkpoints: one safetensors file with every parameter, buffer and optimizer tensor, and the rest
// of the state as JSON in the file's metadata, so that the two can never be of different steps.
// Random numbers are counter-based and the optimizer counts its own updates: (seed, step) is all
// that a resumed run needs.
#pragma once

#include <exception>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <thread>

#include "runtime/nn/builder.h"
#include "runtime/train/optimizer.h"

namespace voxlab::train {

// Complete under its name or not at all. Parameters keep their own names and (channels-last)
// layout; the optimizer's tensors stand under "optimizer/". Equal content gives equal bytes.
void save_checkpoint(const std::filesystem::path& file, const nn::ParameterStore& parameters,
                     const Optimizer& optimizer, const nlohmann::json& state);

// Writes checkpoints in a thread of its own, one at a time: training waits for a copy of the tensors in memory, not
// for the disk.
class CheckpointWriter {
 public:
  CheckpointWriter() = default;
  ~CheckpointWriter();  // waits
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // As save_checkpoint, with the values of now. Waits for the checkpoint before, and throws what that one's writing
  // threw.
  void save(const std::filesystem::path& file, const nn::ParameterStore& parameters, const Optimizer& optimizer,
            const nlohmann::json& state);
  // Returns when all is written; throws what the writing threw.
  void wait();

 private:
  std::thread thread_;
  std::exception_ptr error_;
};

// The state alone. Error when the file is no checkpoint.
nlohmann::json read_checkpoint_state(const std::filesystem::path& file);

// Copies every tensor into place and returns the state. Error, before anything is changed, when a
// parameter is missing, unknown or of another shape. With `optimizer` null its tensors are left
// alone.
nlohmann::json load_checkpoint(const std::filesystem::path& file,
                               const nn::ParameterStore& parameters, Optimizer* optimizer);

}  // namespace voxlab::train
