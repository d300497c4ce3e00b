#include "nets/unetr/config.h"

#include <string>

#include "nets/blocks/config_checks.h"
#include "runtime/core/error.h"

namespace voxlab::unetr {
namespace {

constexpr std::string_view where = "unetr";

}  // namespace

Config preset(std::string_view variant) {
  Config c;
  if (variant == "btcv") return c;
  if (variant == "synapse") {
    c.image = {64, 128, 128};
    return c;
  }
  if (variant == "brats") {
    c.image = {128, 128, 128};
    c.in_channels = 4;
    c.classes = 4;
    return c;
  }
  fail(where, "variant '" + std::string(variant) + "' is none of btcv, synapse, brats");
}

void validate(const Config& c) {
  expect_positive(where, "image", c.image, 3);
  expect_positive(where, "in_channels, classes, feature_size, hidden, mlp, heads, layers",
                  {c.in_channels, c.classes, c.feature_size, c.hidden, c.mlp, c.heads, c.layers}, 7);
  expect_positive(where, "skip_after", c.skip_after, 3);
  for (int64_t size : c.image)
    if (size % 16 != 0) fail(where, "image " + text(c.image) + " is not a multiple of 16, the patch");
  if (c.hidden % c.heads != 0)
    fail(where, "heads " + std::to_string(c.heads) + " do not divide hidden " + std::to_string(c.hidden));
  for (size_t i = 0; i < 3; ++i)
    if (c.skip_after[i] > c.layers || (i > 0 && c.skip_after[i] <= c.skip_after[i - 1]))
      fail(where, "skip_after " + text(c.skip_after) + " must ascend up to layers, " + std::to_string(c.layers));
}

}  // namespace voxlab::unetr
