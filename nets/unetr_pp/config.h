// UNETR++ (Shaker et al., "UNETR++: Delving into Efficient and Accurate 3D Medical Image Segmentation",
// IEEE TMI 2024, arXiv 2212.04497). The four released datasets' networks are values of this Config.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace voxlab::unetr_pp {

// How keys and values are projected from N tokens to P in the spatial branch.
enum class TokenProjection : uint8_t {
  shared_linear,    // synapse: one linear layer with bias for both
  separate_linear,  // acdc, lung: one each
  shared_matrix,    // tumor: one matrix without bias
};
constexpr auto enum_names(TokenProjection) {
  return std::array{std::pair{std::string_view("shared_linear"), TokenProjection::shared_linear},
                    std::pair{std::string_view("separate_linear"), TokenProjection::separate_linear},
                    std::pair{std::string_view("shared_matrix"), TokenProjection::shared_matrix}};
}

// How the two branches of the paired attention are joined.
enum class Fusion : uint8_t {
  concat,  // each projected to half the width, then concatenated
  sum,     // tumor: added, no projection
};
constexpr auto enum_names(Fusion) {
  return std::array{std::pair{std::string_view("concat"), Fusion::concat},
                    std::pair{std::string_view("sum"), Fusion::sum}};
}

// The order in which the spatial branch's result (B, heads, N, d) is written back to (B, N, C). The
// released code permutes to (B, d, heads, N) and reshapes, which mixes tokens with channels; the paper's
// reading is (B, N, heads, d).
enum class SpatialOrder : uint8_t { released, paper };
constexpr auto enum_names(SpatialOrder) {
  return std::array{std::pair{std::string_view("released"), SpatialOrder::released},
                    std::pair{std::string_view("paper"), SpatialOrder::paper}};
}

// Ablations: where the paired attention is used, and which of its branches.
enum class Attention : uint8_t { both, encoder, decoder, none };
constexpr auto enum_names(Attention) {
  return std::array{std::pair{std::string_view("both"), Attention::both},
                    std::pair{std::string_view("encoder"), Attention::encoder},
                    std::pair{std::string_view("decoder"), Attention::decoder},
                    std::pair{std::string_view("none"), Attention::none}};
}
enum class Branches : uint8_t { both, spatial, channel };
constexpr auto enum_names(Branches) {
  return std::array{std::pair{std::string_view("both"), Branches::both},
                    std::pair{std::string_view("spatial"), Branches::spatial},
                    std::pair{std::string_view("channel"), Branches::channel}};
}

struct Config {
  std::vector<int64_t> image{64, 128, 128};  // D, H, W in voxels; token counts are fixed by it
  std::vector<int64_t> patch{2, 4, 4};       // stem kernel = stride
  int64_t in_channels = 1;
  int64_t classes = 14;
  int64_t feature_size = 16;                 // width at full resolution
  std::vector<int64_t> dims{32, 64, 128, 256};
  int64_t heads = 4;
  std::vector<int64_t> encoder_depths{3, 3, 3, 3};
  std::vector<int64_t> decoder_depths{3, 3, 3};           // of decoder5, decoder4, decoder3
  std::vector<int64_t> encoder_projection{64, 64, 64, 32};  // P of each stage
  int64_t decoder_projection = 64;
  TokenProjection token_projection = TokenProjection::shared_linear;
  Fusion fusion = Fusion::concat;
  int64_t conv_blocks = 1;          // residual blocks after the attention: conv51, and conv52 if 2
  double attention_dropout = 0.15;
  double conv_dropout = 0.1;        // whole channels, before the last 1x1x1 convolution of a block
  bool deep_supervision = true;
  SpatialOrder spatial_order = SpatialOrder::released;
  Attention attention = Attention::both;
  Branches branches = Branches::both;

  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("image", s.image);
    v("patch", s.patch);
    v("in_channels", s.in_channels);
    v("classes", s.classes);
    v("feature_size", s.feature_size);
    v("dims", s.dims);
    v("heads", s.heads);
    v("encoder_depths", s.encoder_depths);
    v("decoder_depths", s.decoder_depths);
    v("encoder_projection", s.encoder_projection);
    v("decoder_projection", s.decoder_projection);
    v("token_projection", s.token_projection);
    v("fusion", s.fusion);
    v("conv_blocks", s.conv_blocks);
    v("attention_dropout", s.attention_dropout);
    v("conv_dropout", s.conv_dropout);
    v("deep_supervision", s.deep_supervision);
    v("spatial_order", s.spatial_order);
    v("attention", s.attention);
    v("branches", s.branches);
  }
};

// Token grid of encoder stage 0 ... 3.
std::array<std::vector<int64_t>, 4> token_grids(const Config& c);

// The released networks. Error on another name.
constexpr std::string_view variants[] = {"synapse", "acdc", "lung", "tumor"};
Config preset(std::string_view variant);

// Error naming the first field that does not fit.
void validate(const Config& c);

}  // namespace voxlab::unetr_pp
