#include "nets/unetr_pp/config.h"

#include <string>

#include "nets/blocks/config_checks.h"
#include "runtime/core/error.h"

namespace voxlab::unetr_pp {
namespace {

constexpr std::string_view where = "unetr_pp";

}  // namespace

std::array<std::vector<int64_t>, 4> token_grids(const Config& c) {
  std::array<std::vector<int64_t>, 4> grids;
  for (size_t stage = 0; stage < 4; ++stage)
    for (size_t axis = 0; axis < 3; ++axis) grids[stage].push_back(c.image[axis] / c.patch[axis] >> stage);
  return grids;
}

Config preset(std::string_view variant) {
  Config c;
  if (variant == "synapse") return c;
  c.attention_dropout = 0.1;
  if (variant == "acdc" || variant == "lung") {
    c.image = variant == "acdc" ? std::vector<int64_t>{16, 160, 160} : std::vector<int64_t>{32, 192, 192};
    c.patch = {1, 4, 4};
    c.classes = variant == "acdc" ? 4 : 2;
    c.token_projection = TokenProjection::separate_linear;
    c.conv_blocks = 2;
    return c;
  }
  if (variant == "tumor") {
    c.image = {128, 128, 128};
    c.patch = {4, 4, 4};
    c.in_channels = 4;
    c.classes = 4;
    c.token_projection = TokenProjection::shared_matrix;
    c.fusion = Fusion::sum;
    return c;
  }
  fail(where, "variant '" + std::string(variant) + "' is none of synapse, acdc, lung, tumor");
}

void validate(const Config& c) {
  expect_positive(where, "image", c.image, 3);
  expect_positive(where, "patch", c.patch, 3);
  expect_positive(where, "dims", c.dims, 4);
  expect_positive(where, "encoder_depths", c.encoder_depths, 4);
  expect_positive(where, "decoder_depths", c.decoder_depths, 3);
  expect_positive(where, "encoder_projection", c.encoder_projection, 4);
  expect_positive(where, "in_channels, classes, feature_size, heads, decoder_projection",
                  {c.in_channels, c.classes, c.feature_size, c.heads, c.decoder_projection}, 5);
  for (size_t axis = 0; axis < 3; ++axis)
    if (c.image[axis] % (8 * c.patch[axis]) != 0)
      fail(where, "image " + text(c.image) + " is not a multiple of 8 times patch " + text(c.patch) +
                      ": the encoder halves the patch grid three times");
  for (size_t stage = 0; stage < 4; ++stage) {
    if (c.dims[stage] % c.heads != 0)
      fail(where, "heads " + std::to_string(c.heads) + " do not divide dims " + text(c.dims));
    if (c.dims[stage] != c.feature_size << (stage + 1))
      fail(where, "dims must be feature_size times [2, 4, 8, 16] (the decoder's widths), got " + text(c.dims) +
                      " for feature_size " + std::to_string(c.feature_size));
  }
  if (c.dims[0] % c.in_channels != 0)
    fail(where, "in_channels " + std::to_string(c.in_channels) + " do not divide dims[0] " +
                    std::to_string(c.dims[0]) + ": the stem's group norm has one group an input channel");
  if (c.conv_blocks != 1 && c.conv_blocks != 2)
    fail(where, "conv_blocks must be 1 or 2, got " + std::to_string(c.conv_blocks));
  for (double p : {c.attention_dropout, c.conv_dropout})
    if (!(p >= 0 && p < 1)) fail(where, "a dropout rate must lie in [0, 1), got " + std::to_string(p));
  const bool any = c.attention != Attention::none;
  if (!any && c.branches != Branches::both)
    fail(where, "branches = " + std::string(c.branches == Branches::spatial ? "spatial" : "channel") +
                    " makes no sense with attention = none");
}

}  // namespace voxlab::unetr_pp
