// Checkpoints: one safetensors file with every parameter, buffer and optimizer tensor, and the rest
// of the state as JSON in the file's metadata, so that the two can never be of different steps.
// Random numbers are counter-based and the optimizer counts its own updates: (seed, step) is all
// that a resumed run needs.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "runtime/nn/builder.h"
#include "runtime/train/optimizer.h"

namespace voxlab::train {

// Complete under its name or not at all. Parameters keep their own names and (channels-last)
// layout; the optimizer's tensors stand under "optimizer/". Equal content gives equal bytes.
void save_checkpoint(const std::filesystem::path& file, const nn::ParameterStore& parameters,
                     const Optimizer& optimizer, const nlohmann::json& state);

// The state alone. Error when the file is no checkpoint.
nlohmann::json read_checkpoint_state(const std::filesystem::path& file);

// Copies every tensor into place and returns the state. Error, before anything is changed, when a
// parameter is missing, unknown or of another shape. With `optimizer` null its tensors are left
// alone.
nlohmann::json load_checkpoint(const std::filesystem::path& file,
                               const nn::ParameterStore& parameters, Optimizer* optimizer);

}  // namespace voxlab::train
