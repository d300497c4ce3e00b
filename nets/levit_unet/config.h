// LeViT-UNet (Xu et al., "LeViT-UNet: Make Faster Encoders with Transformer for Medical Image Segmentation",
// PRCV 2023, arXiv 2107.08623). The three released networks, 128s, 192 and 384, are values of this Config.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/nn/layers.h"

namespace voxlab::levit_unet {

// How the map of the last stage, a quarter of the first stage's grid or a little more, comes to that grid.
enum class CoarseUpsampling : uint8_t {
  released,  // twice x2, then resized where that overshoots: 4 -> 8 -> 16 -> 14
  direct,    // in one step: 4 -> 14
};
constexpr auto enum_names(CoarseUpsampling) {
  return std::array{std::pair{std::string_view("released"), CoarseUpsampling::released},
                    std::pair{std::string_view("direct"), CoarseUpsampling::direct}};
}

struct Config {
  std::vector<int64_t> image{224, 224};  // H, W in pixels; the attention bias tables are sized by it
  int64_t in_channels = 1;
  int64_t classes = 9;
  std::vector<int64_t> stem{48, 96, 192, 384};  // widths at 1/2, 1/4, 1/8, 1/16
  std::vector<int64_t> embed{384, 512, 768};    // widths of the transformer's stages at 1/16, 1/32, 1/64
  std::vector<int64_t> depths{4, 4, 4};         // pairs of attention and MLP
  std::vector<int64_t> heads{6, 9, 12};
  int64_t key_dim = 32;                         // of a head's query and key; its value has attention_ratio times that
  int64_t attention_ratio = 2;
  int64_t mlp_ratio = 2;
  std::vector<int64_t> down_heads{12, 16};      // of the attention that leads from a stage to the next
  int64_t down_attention_ratio = 4;
  int64_t down_mlp_ratio = 2;
  std::vector<int64_t> decoder{512, 256, 128};  // widths at 1/8, 1/4, 1/2
  nn::NormKind decoder_norm = nn::NormKind::batch;
  double drop_path = 0.1;                       // stochastic depth of the residual branches
  int64_t skips = 3;                            // stem maps that the decoder gets: 1/8, then 1/4, then 1/2
  bool transformer = true;                      // ablation: without, the decoder starts from the stem
  CoarseUpsampling coarse_upsampling = CoarseUpsampling::released;
  bool repeated_blocks = false;  // released 192: its module tree names every transformer block twice, which counting
                                 // tools and checkpoints see
  bool folded = false;  // inference: batch norms folded into the layers before them, see fold()

  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("image", s.image);
    v("in_channels", s.in_channels);
    v("classes", s.classes);
    v("stem", s.stem);
    v("embed", s.embed);
    v("depths", s.depths);
    v("heads", s.heads);
    v("key_dim", s.key_dim);
    v("attention_ratio", s.attention_ratio);
    v("mlp_ratio", s.mlp_ratio);
    v("down_heads", s.down_heads);
    v("down_attention_ratio", s.down_attention_ratio);
    v("down_mlp_ratio", s.down_mlp_ratio);
    v("decoder", s.decoder);
    v("decoder_norm", s.decoder_norm);
    v("drop_path", s.drop_path);
    v("skips", s.skips);
    v("transformer", s.transformer);
    v("coarse_upsampling", s.coarse_upsampling);
    v("repeated_blocks", s.repeated_blocks);
    v("folded", s.folded);
  }
};

// Token grid (rows, columns) of stage 0 ... 2: each halves the one before, rounding up.
std::array<std::array<int64_t, 2>, 3> token_grids(const Config& c);

// The released networks. Error on another name.
constexpr std::string_view variants[] = {"384", "192", "128s"};
Config preset(std::string_view variant);

// Error naming the first field that does not fit.
void validate(const Config& c);

}  // namespace voxlab::levit_unet
