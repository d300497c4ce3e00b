#include "nets/brats_unet/config.h"

#include <algorithm>
#include <string>

#include "nets/blocks/config_checks.h"
#include "runtime/core/error.h"

namespace voxlab::brats_unet {
namespace {

constexpr std::string_view where = "brats_unet";
constexpr int64_t most_pools = 10;  // an image of 1024 voxels a side

void expect_at_least(std::string_view key, int64_t value, int64_t least) {
  if (value < least)
    fail(where, std::string(key) + " must be at least " + std::to_string(least) + ", got " + std::to_string(value));
}

void validate_norm(const Config& c) {
  if (c.norm == nn::NormKind::group) {
    for (int64_t level = 0; level <= c.num_pool; ++level)
      for (int64_t width : {encoder_width(c, level), decoder_width(c, level)})
        if (width % c.groups != 0)
          fail(where, "groups " + std::to_string(c.groups) + " do not divide the width " + std::to_string(width) +
                          " at level " + std::to_string(level));
  }
  const int64_t deepest = (c.image[0] >> c.num_pool) * (c.image[1] >> c.num_pool) * (c.image[2] >> c.num_pool);
  if (c.norm == nn::NormKind::instance && deepest == 1)
    fail(where, "an instance norm of a bottleneck of one voxel is always zero: image " + text(c.image) +
                    " is too small for num_pool " + std::to_string(c.num_pool));
}

void validate_axial(const Config& c) {
  std::vector<int64_t> seen;
  for (int64_t step : c.axial_steps) {
    if (step < 0 || step >= c.num_pool)
      fail(where, "axial_steps " + text(c.axial_steps) + " must lie in 0 (deepest) to " +
                      std::to_string(c.num_pool - 1) + " (full resolution)");
    if (std::find(seen.begin(), seen.end(), step) != seen.end())
      fail(where, "axial_steps " + text(c.axial_steps) + " names a step twice");
    seen.push_back(step);
  }
}

}  // namespace

int64_t encoder_width(const Config& c, int64_t level) {
  return std::min((c.base_features * c.encoder_scale) << level, c.max_features);
}

int64_t decoder_width(const Config& c, int64_t level) { return encoder_width(c, level) / c.encoder_scale; }

std::vector<int64_t> released_axial_steps(int64_t num_pool) {
  std::vector<int64_t> steps;
  for (int64_t step = 0; step + 1 < num_pool; ++step) steps.push_back(step);
  return steps;
}

Config preset(std::string_view variant) {
  Config c;
  const auto is = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), variant) != names.end();
  };
  if (std::find(std::begin(variants), std::end(variants), variant) == std::end(variants)) {
    std::string known;
    for (std::string_view each : variants) known += (known.empty() ? "" : ", ") + std::string(each);
    fail(where, "variant '" + std::string(variant) + "' is none of " + known);
  }
  if (is({"bl_gn", "bl_l_gn", "xl_gn"})) c.norm = nn::NormKind::group;
  if (is({"bl_in"})) c.norm = nn::NormKind::instance;
  if (is({"bl_l", "bl_l_gn", "bl_l_aa"})) {
    c.encoder_scale = 2;
    c.max_features = 512;
  }
  if (is({"xl_gn"})) {
    c.base_features = 64;
    c.max_features = 1024;
  }
  if (is({"bl_aa", "bl_l_aa"})) c.axial_steps = released_axial_steps(c.num_pool);
  return c;
}

void validate(const Config& c) {
  if (c.image.size() != 3) fail(where, "image needs three sizes (D, H, W), got " + text(c.image));
  expect_at_least("in_channels", c.in_channels, 1);
  expect_at_least("classes", c.classes, 1);
  expect_at_least("base_features", c.base_features, 1);
  expect_at_least("encoder_scale", c.encoder_scale, 1);
  expect_at_least("max_features", c.max_features, 1);
  expect_at_least("groups", c.groups, 1);
  expect_at_least("axial_heads", c.axial_heads, 1);
  expect_at_least("axial_dim_heads", c.axial_dim_heads, 1);
  expect_at_least("num_pool", c.num_pool, 1);
  if (c.num_pool > most_pools)
    fail(where, "num_pool must be at most " + std::to_string(most_pools) + ", got " + std::to_string(c.num_pool));
  for (int64_t size : c.image)
    if (size < 1 || size % (int64_t{1} << c.num_pool) != 0)
      fail(where, "image " + text(c.image) + " is not a multiple of " + std::to_string(int64_t{1} << c.num_pool) +
                      ": num_pool " + std::to_string(c.num_pool) + " halves it so often");
  if (c.max_features < c.base_features * c.encoder_scale)
    fail(where, "max_features " + std::to_string(c.max_features) + " is below the first level's " +
                    std::to_string(c.base_features * c.encoder_scale) + " (base_features times encoder_scale)");
  if (!(c.dropout >= 0 && c.dropout < 1))
    fail(where, "a dropout rate must lie in [0, 1), got " + std::to_string(c.dropout));
  validate_norm(c);
  validate_axial(c);
}

}  // namespace voxlab::brats_unet
