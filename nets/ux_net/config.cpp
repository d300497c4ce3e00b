#include "nets/ux_net/config.h"

#include <string>

#include "nets/blocks/config_checks.h"
#include "runtime/core/error.h"

namespace voxlab::ux_net {
namespace {

constexpr std::string_view where = "ux_net";

void validate_image(const Config& c) {
  expect_positive(where, "image", c.image, 3);
  int64_t deepest = 1;
  for (int64_t size : c.image) {
    if (size % 16 != 0)
      fail(where, "image " + text(c.image) + " is not a multiple of 16: the encoder halves it four times");
    deepest *= size / 16;
  }
  if (deepest == 1 && c.decoder_norm != nn::NormKind::group)
    fail(where, "image " + text(c.image) + " leaves one voxel at the bottleneck, which " +
                    (c.decoder_norm == nn::NormKind::instance ? "instance" : "batch") +
                    " norm turns into zero: one axis must be above 16");
}

void validate_decoder_groups(const Config& c) {
  std::vector<int64_t> normed = c.widths;
  normed.push_back(c.hidden);
  for (int64_t width : normed)
    if (width % c.decoder_groups != 0)
      fail(where, "decoder_groups " + std::to_string(c.decoder_groups) + " do not divide the decoder's widths " +
                      text(normed));
}

}  // namespace

Config preset(std::string_view variant) {
  Config c;
  if (variant == "flare") return c;
  if (variant == "feta") {
    c.classes = 8;
    return c;
  }
  if (variant == "amos") {
    c.classes = 16;
    return c;
  }
  fail(where, "variant '" + std::string(variant) + "' is none of flare, feta, amos");
}

void validate(const Config& c) {
  validate_image(c);
  expect_positive(where, "widths", c.widths, 4);
  expect_positive(where, "depths", c.depths, 4);
  expect_positive(where, "in_channels, classes, hidden, decoder_groups",
                  {c.in_channels, c.classes, c.hidden, c.decoder_groups}, 4);
  if (c.kernel < 1 || c.kernel % 2 == 0)
    fail(where, "kernel must be odd, so that a block keeps the grid; got " + std::to_string(c.kernel));
  if (!(c.layer_scale >= 0)) fail(where, "layer_scale must not be negative, got " + std::to_string(c.layer_scale));
  if (!(c.drop_path >= 0 && c.drop_path < 1))
    fail(where, "drop_path must lie in [0, 1), got " + std::to_string(c.drop_path));
  if (c.decoder_norm == nn::NormKind::group) validate_decoder_groups(c);
}

}  // namespace voxlab::ux_net
