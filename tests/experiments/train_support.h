// A dataset of small volumes and a configuration that learns it in seconds.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "experiments/config/bind.h"
#include "experiments/config/parse.h"
#include "experiments/data/nifti.h"
#include "experiments/run/experiment.h"
#include "runtime/core/rng.h"
#include "tests/support/temporary_folder.h"

namespace voxlab::test {

inline std::string file_text(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// A bright ball (label 1) and a dark one (label 5) in noise; 20 x 18 x 22 voxels of 2 x 1 x 1 mm
// with an oblique place in space.
inline void write_ball_case(const std::filesystem::path& root, const std::string& part,
                            const std::string& id, uint32_t stream) {
  constexpr Size3 size{20, 18, 22};
  const Philox random(11, stream);
  Volume image{.voxels = Tensor::empty({size[0], size[1], size[2], 1}, DType::f32),
               .spacing = {2, 1, 1}};
  image.affine = {{{0, -1, 0, 5}, {1, 0, 0, -7}, {0, 0, 2, 11}, {0, 0, 0, 1}}};
  Volume label{.voxels = Tensor::empty({size[0], size[1], size[2], 1}, DType::u8),
               .spacing = image.spacing,
               .affine = image.affine};
  std::array<double, 6> centre;
  for (size_t a = 0; a < 6; ++a) centre[a] = 5 + (a < 3 ? 0.0 : 7.0) + 2 * random.uniform(a);
  int64_t v = 0;
  for (int64_t z = 0; z < size[0]; ++z)
    for (int64_t y = 0; y < size[1]; ++y)
      for (int64_t x = 0; x < size[2]; ++x, ++v) {
        const auto inside = [&](size_t first) {
          const double dz = static_cast<double>(z) - centre[first],
                       dy = static_cast<double>(y) - centre[first + 1];
          const double dx = static_cast<double>(x) - centre[first + 2];
          return dz * dz + dy * dy + dx * dx < 16;
        };
        const int value = inside(0) ? 1 : inside(3) ? 5 : 0;
        label.voxels.data<uint8_t>()[v] = static_cast<uint8_t>(value);
        image.voxels.data<float>()[v] =
            static_cast<float>((value == 1   ? 3
                                : value == 5 ? -3
                                             : 0) +
                               0.3 * random.normal(100 + static_cast<uint64_t>(v)));
      }
  write_nifti(root / ("images" + part) / (id + "_0000.nii.gz"), image, NiftiType::float32);
  write_nifti(root / ("labels" + part) / (id + ".nii.gz"), label, NiftiType::uint8);
}

inline std::filesystem::path write_ball_dataset(const std::filesystem::path& root) {
  for (const char* each : {"imagesTr", "labelsTr", "imagesTs", "labelsTs"})
    std::filesystem::create_directories(root / each);
  for (uint32_t i = 0; i < 4; ++i) write_ball_case(root, "Tr", "ball_" + std::to_string(i), i);
  for (uint32_t i = 4; i < 6; ++i) write_ball_case(root, "Ts", "ball_" + std::to_string(i), i);
  std::ofstream(root / "dataset.json") << R"({"name": "Balls", "channel_names": {"0": "T1w"},
    "labels": {"background": 0, "bright": 1, "dark": 5}, "numTraining": 4, "file_ending": ".nii.gz"})";
  return root;
}

// Small enough for the plainest kernels: 16^3 patches, widths 8 to 64, no anisotropic resampling.
inline ConfigNode ball_config(const std::filesystem::path& data, const std::string& more = "") {
  ConfigNode node = parse_config(R"(
seed = 3
[unetr_pp]
image = [16, 16, 16]
patch = [2, 2, 2]
classes = 3
feature_size = 4
dims = [8, 16, 32, 64]
heads = 2
encoder_depths = [1, 1, 1, 1]
decoder_depths = [1, 1, 1]
encoder_projection = [8, 8, 4, 1]
decoder_projection = 8
[data.preprocess]
resample = false
[train]
steps = 12
checkpoint_every = 3
[train.optimizer]
kind = "adamw"
lr = 3e-3
[train.schedule]
kind = "cosine"
warmup = 2
)",
                                 "ball");
  node.find("data")->set("source", ConfigNode::of(data.string()));
  merge(node, parse_config(more, "more"));
  return resolve_experiment(node);
}

}  // namespace voxlab::test
