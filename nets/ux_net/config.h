// 3D UX-Net (Lee et al., "3D UX-Net: A Large Kernel Volumetric ConvNet Modernizing Hierarchical Transformer for
// Medical Image Segmentation", ICLR 2023, arXiv 2209.15076). Datasets differ in the number of classes only.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/nn/layers.h"

namespace voxlab::ux_net {

// How a block widens its channels to four times as many and narrows them again.
enum class Scaling : uint8_t {
  grouped,  // released: depth-wise, each channel has its own four (1x1x1, groups = channels)
  dense,    // first public code: an MLP over all channels, as in ConvNeXt
};
constexpr auto enum_names(Scaling) {
  return std::array{std::pair{std::string_view("grouped"), Scaling::grouped},
                    std::pair{std::string_view("dense"), Scaling::dense}};
}

// The large-kernel convolution of a block; `standard` is the paper's ablation.
enum class BlockConv : uint8_t { depthwise, standard };
constexpr auto enum_names(BlockConv) {
  return std::array{std::pair{std::string_view("depthwise"), BlockConv::depthwise},
                    std::pair{std::string_view("standard"), BlockConv::standard}};
}

// How the image becomes the first map, at half its resolution.
enum class Stem : uint8_t {
  overlapping,  // released: 7x7x7 convolution, stride 2
  patches,      // ablation: a linear projection of 2x2x2 patches, as in Swin
};
constexpr auto enum_names(Stem) {
  return std::array{std::pair{std::string_view("overlapping"), Stem::overlapping},
                    std::pair{std::string_view("patches"), Stem::patches}};
}

struct Config {
  std::vector<int64_t> image{96, 96, 96};  // D, H, W in voxels
  int64_t in_channels = 1;
  int64_t classes = 5;
  std::vector<int64_t> widths{48, 96, 192, 384};  // channels of the four stages; widths[0] also at full resolution
  std::vector<int64_t> depths{2, 2, 2, 2};        // blocks of each stage
  int64_t hidden = 768;                           // width of the bottleneck, encoder5
  int64_t kernel = 7;                             // of the blocks; the stem's is 7 in any case
  Scaling scaling = Scaling::grouped;
  BlockConv conv = BlockConv::depthwise;
  Stem stem = Stem::overlapping;
  double layer_scale = 1e-6;  // starting value of gamma; 0: no gamma
  double drop_path = 0;       // of the last block; rises linearly from 0 at the first
  nn::NormKind decoder_norm = nn::NormKind::instance;
  int64_t decoder_groups = 8;  // of a group norm

  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("image", s.image);
    v("in_channels", s.in_channels);
    v("classes", s.classes);
    v("widths", s.widths);
    v("depths", s.depths);
    v("hidden", s.hidden);
    v("kernel", s.kernel);
    v("scaling", s.scaling);
    v("conv", s.conv);
    v("stem", s.stem);
    v("layer_scale", s.layer_scale);
    v("drop_path", s.drop_path);
    v("decoder_norm", s.decoder_norm);
    v("decoder_groups", s.decoder_groups);
  }
};

// The released networks; flare is the one whose parameters and operations the paper prints.
constexpr std::string_view variants[] = {"flare", "feta", "amos"};
Config preset(std::string_view variant);  // Error on another name

// Error naming the first field that does not fit.
void validate(const Config& c);

}  // namespace voxlab::ux_net
