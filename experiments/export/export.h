// A network as an ONNX file.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "nets/zoo.h"
#include "runtime/io/onnx_file.h"

namespace voxlab {

// The inference pass of one image, full-size logits only: (1, in_channels, spatial...) -> (1,
// classes, spatial...), both channels first, named "image" and "logits". `x` are the values it was
// traced with and `y` what the network made of them, in the same order of axes.
struct ExportedNetwork {
  OnnxModel model;
  Tensor x, y;
};
ExportedNetwork export_network(const Network& network, const std::string& name);

// (N, spatial..., C) as other programs have it, (N, C, spatial...), and back.
Tensor with_channels_first(const Tensor& t);
Tensor with_channels_last(const Tensor& t);

// Puts a safetensors file with our names (`voxlab import`, a run's checkpoint) into the network.
// Error when a parameter is missing or of another shape, the file has others, or it says that it
// belongs to another network.
void load_weights(const NetConfig& config, Network& network, const std::filesystem::path& file);

}  // namespace voxlab
