// Small networks of every kind and batches of random numbers for them.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "experiments/config/bind.h"
#include "experiments/config/parse.h"
#include "nets/zoo.h"
#include "runtime/core/rng.h"

namespace voxlab {

inline NetConfig small_config(const std::filesystem::path& file) {
  const ConfigNode node = load_config(file);
  std::string net, variant;
  read_value(*node.find("net"), "net", net);
  if (const ConfigNode* found = node.find("variant")) read_value(*found, "variant", variant);
  NetConfig config = net_preset(net, variant);
  read_value(node, "", config);
  return config;
}

// In the order of their names; without those made for inference alone.
inline std::vector<std::filesystem::path> small_trainable_networks() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(VOXLAB_TEST_DATA "/export/small")) {
    const NetConfig config = small_config(entry.path());
    if (config.net != "levit_unet" || !config.levit_unet.folded) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Two samples.
inline Tensor random_image(const Network& net, uint64_t seed) {
  Shape shape{2};
  for (int64_t size : net.patch) shape.push_back(size);
  shape.push_back(net.in_channels);
  const Philox random(seed);
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.normal(i));
  return Tensor::from_span(shape, std::span<const float>(values));
}

inline Tensor random_labels(const Network& net, uint64_t seed) {
  Shape shape{2};
  for (int64_t size : net.patch) shape.push_back(size);
  Tensor labels = Tensor::empty(shape, DType::i32);
  const Philox random(seed);
  for (int64_t i = 0; i < shape.numel(); ++i)
    labels.data<int32_t>()[i] = static_cast<int32_t>(random.below(static_cast<uint64_t>(i), net.classes));
  return labels;
}

}  // namespace voxlab
