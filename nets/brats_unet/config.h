// The BraTS 2021 winner (Luu and Park, "Extending nn-UNet for Brain Tumor Segmentation", BrainLes 2021,
// arXiv 2112.04653): nnU-Net's U-Net with a larger encoder, group norm, or axial attention in the decoder.
// The trainers' networks are values of this Config.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "runtime/nn/layers.h"

namespace voxlab::brats_unet {

struct Config {
  std::vector<int64_t> image{128, 128, 128};  // D, H, W in voxels; position embeddings are as long
  int64_t in_channels = 4;
  int64_t classes = 3;          // output channels: the regions WT, TC, ET. The network gives logits of either kind
  int64_t base_features = 32;   // width of the decoder at full resolution
  int64_t max_features = 320;   // no level is wider
  int64_t num_pool = 5;         // halvings
  int64_t encoder_scale = 1;    // 2: the encoder is twice as wide as what the decoder's levels give
  nn::NormKind norm = nn::NormKind::batch;
  int64_t groups = 32;          // of a group norm, at every width
  double dropout = 0;           // whole channels, between convolution and norm
  std::vector<int64_t> axial_steps{};  // decoder steps with axial attention, 0 the deepest; empty: none
  int64_t axial_heads = 2;      // at full resolution; both double with every halving
  int64_t axial_dim_heads = 8;
  bool deep_supervision = true;

  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("image", s.image);
    v("in_channels", s.in_channels);
    v("classes", s.classes);
    v("base_features", s.base_features);
    v("max_features", s.max_features);
    v("num_pool", s.num_pool);
    v("encoder_scale", s.encoder_scale);
    v("norm", s.norm);
    v("groups", s.groups);
    v("dropout", s.dropout);
    v("axial_steps", s.axial_steps);
    v("axial_heads", s.axial_heads);
    v("axial_dim_heads", s.axial_dim_heads);
    v("deep_supervision", s.deep_supervision);
  }
};

// Width of the encoder after `level` halvings; the bottleneck is level num_pool.
int64_t encoder_width(const Config& c, int64_t level);
// Width that the decoder gives back at a level.
int64_t decoder_width(const Config& c, int64_t level);

// Every decoder step but the one at full resolution: where the released network attends.
std::vector<int64_t> released_axial_steps(int64_t num_pool);

// The paper's configurations by its names, one a trainer, then nnU-Net's own norm and two more of the code:
// see NOTES.md. Error on another name.
constexpr std::string_view variants[] = {"bl", "bl_gn", "bl_l", "bl_l_gn", "bl_aa", "bl_l_aa", "bl_in", "xl_gn"};
Config preset(std::string_view variant);

// Error naming the first field that does not fit.
void validate(const Config& c);

}  // namespace voxlab::brats_unet
