// UNETR (Hatamizadeh et al., "UNETR: Transformers for 3D Medical Image Segmentation", WACV 2022, arXiv 2103.10504), as
// MONAI builds it: the baseline that UNETR++ and 3D UX-Net compare with.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace voxlab::unetr {

struct Config {
  std::vector<int64_t> image{96, 96, 96};  // D, H, W in voxels; position embeddings are fixed by it
  int64_t in_channels = 1;
  int64_t classes = 14;
  int64_t feature_size = 16;  // width at full resolution
  int64_t hidden = 768;       // width of a token
  int64_t mlp = 3072;         // width inside a block's MLP
  int64_t heads = 12;
  int64_t layers = 12;
  // Blocks after which the three skips are taken. The paper says 3, 6 and 9; the code reads a list of the blocks'
  // outputs at 3, 6 and 9, counted from 0.
  std::vector<int64_t> skip_after{4, 7, 10};
  // Newer MONAI: each block has a norm for cross-attention, which nothing uses.
  bool unused_norms = true;

  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("image", s.image);
    v("in_channels", s.in_channels);
    v("classes", s.classes);
    v("feature_size", s.feature_size);
    v("hidden", s.hidden);
    v("mlp", s.mlp);
    v("heads", s.heads);
    v("layers", s.layers);
    v("skip_after", s.skip_after);
    v("unused_norms", s.unused_norms);
  }
};

// UNETR's own paper, and the rows of the UNETR++ tables.
constexpr std::string_view variants[] = {"btcv", "synapse", "brats"};
Config preset(std::string_view variant);  // Error on another name

// Error naming the first field that does not fit.
void validate(const Config& c);

}  // namespace voxlab::unetr
