#include "nets/levit_unet/config.h"

#include <string>

#include "nets/blocks/config_checks.h"
#include "runtime/core/error.h"

namespace voxlab::levit_unet {
namespace {

constexpr std::string_view where = "levit_unet";

}  // namespace

std::array<std::array<int64_t, 2>, 3> token_grids(const Config& c) {
  std::array<std::array<int64_t, 2>, 3> grids{{{c.image[0] / 16, c.image[1] / 16}}};
  for (size_t stage = 1; stage < 3; ++stage)
    for (size_t axis = 0; axis < 2; ++axis) grids[stage][axis] = (grids[stage - 1][axis] + 1) / 2;
  return grids;
}

Config preset(std::string_view variant) {
  Config c;
  if (variant == "384") return c;
  c.drop_path = 0;
  if (variant == "192") {
    c.stem = {24, 48, 96, 192};
    c.embed = {192, 288, 384};
    c.heads = {3, 5, 6};
    c.down_heads = {6, 9};
    c.repeated_blocks = true;
    return c;
  }
  if (variant == "128s") {
    c.stem = {16, 32, 64, 128};
    c.embed = {128, 256, 384};
    c.depths = {2, 3, 4};
    c.heads = {4, 6, 8};
    c.key_dim = 16;
    c.down_heads = {8, 16};
    return c;
  }
  fail(where, "variant '" + std::string(variant) + "' is none of 384, 192, 128s");
}

void validate(const Config& c) {
  expect_positive(where, "image", c.image, 2);
  expect_positive(where, "stem", c.stem, 4);
  expect_positive(where, "embed", c.embed, 3);
  expect_positive(where, "depths", c.depths, 3);
  expect_positive(where, "heads", c.heads, 3);
  expect_positive(where, "down_heads", c.down_heads, 2);
  expect_positive(where, "decoder", c.decoder, 3);
  expect_positive(where, "in_channels, classes, key_dim", {c.in_channels, c.classes, c.key_dim}, 3);
  expect_positive(where, "attention_ratio, mlp_ratio, down_attention_ratio, down_mlp_ratio",
                  {c.attention_ratio, c.mlp_ratio, c.down_attention_ratio, c.down_mlp_ratio}, 4);
  for (int64_t size : c.image)
    if (size % 32 != 0)
      fail(where, "image " + text(c.image) + " is not a multiple of 32: the stem divides it by 16, and the second "
                      "stage's grid, doubled, must be the first one's");
  if (c.stem[3] != c.embed[0])
    fail(where, "stem " + text(c.stem) + " must end with embed[0], the tokens' width, got embed " + text(c.embed));
  if (!(c.drop_path >= 0 && c.drop_path < 1))
    fail(where, "drop_path must lie in [0, 1), got " + std::to_string(c.drop_path));
  if (c.skips < 0 || c.skips > 3) fail(where, "skips must be 0 to 3, got " + std::to_string(c.skips));
  if (c.decoder_norm == nn::NormKind::group)
    fail(where, "decoder_norm = group has no number of groups here; choose batch or instance");
  if (c.folded && c.decoder_norm != nn::NormKind::batch)
    fail(where, "folded = true makes no sense with decoder_norm = instance: only a batch norm's statistics are fixed");
  if (!c.transformer && c.coarse_upsampling != CoarseUpsampling::released)
    fail(where, "coarse_upsampling = direct makes no sense with transformer = false: there is no coarse map");
}

}  // namespace voxlab::levit_unet
