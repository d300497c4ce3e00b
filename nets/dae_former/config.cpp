// Presets of DAE-Former, and what does not fit together.
#include "nets/dae_former/config.h"

#include <string>

#include "nets/blocks/config_checks.h"
#include "runtime/core/error.h"

namespace voxlab::dae_former {
namespace {

constexpr std::string_view where = "dae_former";

void expect_divides(std::string_view key, int64_t heads, std::string_view of, int64_t width) {
  if (width % heads != 0)
    fail(where, std::string(key) + " " + std::to_string(heads) + " do not divide " +
                    std::string(of) + " " + std::to_string(width));
}

void check_widths(const Config& c) {
  const size_t stages = c.dims.size();
  if (stages < 2 || stages > 4)
    fail(where, "dims needs two to four widths, one a stage, got " + text(c.dims));
  expect_positive(where, "dims", c.dims, stages);
  expect_positive(where, "layers", c.layers, stages);
  if (!c.key_dims.empty()) expect_positive(where, "key_dims (or none)", c.key_dims, stages);
  if (!c.value_dims.empty()) expect_positive(where, "value_dims (or none)", c.value_dims, stages);
  for (size_t stage = 0; stage < stages; ++stage) {
    expect_divides("efficient_heads", c.efficient_heads, "the key width", key_dim(c, stage));
    expect_divides("efficient_heads", c.efficient_heads, "the value width", value_dim(c, stage));
    expect_divides("channel_heads", c.channel_heads, "the width", c.dims[stage]);
  }
}

void check_skips(const Config& c) {
  const auto levels = static_cast<int64_t>(c.dims.size()) - 1;  // the deepest one has no skip
  if (c.skips < 0 || c.skips > levels)
    fail(where, "skips must lie in 0 ... " + std::to_string(levels) + " for " +
                    std::to_string(c.dims.size()) + " stages, got " + std::to_string(c.skips));
  int64_t width = c.dims.back();
  for (int64_t level = levels; level > 0; --level) {
    if (level < c.skips) width = c.dims[static_cast<size_t>(level)];
    if (width % 2 != 0)
      fail(where, "dims " + text(c.dims) + ": level " + std::to_string(level) +
                      " of the decoder cannot halve " + std::to_string(width));
    width /= 2;
  }
  const bool cross = c.skips > 0 && c.skip == Skip::cross_attention;
  if (!cross && c.cross_keys == CrossKeys::decoder)
    fail(where, "cross_keys = decoder makes no sense without a cross attention (skips " +
                    std::to_string(c.skips) + ")");
  for (size_t stage = 0; cross && stage < static_cast<size_t>(c.skips); ++stage) {
    if (key_dim(c, stage) > c.dims[stage])
      fail(where, "key_dims " + text(c.key_dims) + " exceed dims " + text(c.dims) +
                      ": the cross attention takes its keys from the first channels of a map");
    expect_divides("cross_heads", c.cross_heads, "the key width", key_dim(c, stage));
    expect_divides("cross_heads", c.cross_heads, "the width", c.dims[stage]);
  }
}

}  // namespace

int64_t key_dim(const Config& c, size_t stage) {
  return (c.key_dims.empty() ? c.dims : c.key_dims)[stage];
}
int64_t value_dim(const Config& c, size_t stage) {
  return (c.value_dims.empty() ? c.dims : c.value_dims)[stage];
}

Config preset(std::string_view variant) {
  Config c;
  if (variant == "synapse") return c;
  if (variant == "synapse_as_written") {
    c.repeat_fc1 = true;
    return c;
  }
  if (variant == "isic2018") {
    c.in_channels = 3;
    c.classes = 1;
    return c;
  }
  fail(where,
       "variant '" + std::string(variant) + "' is none of synapse, synapse_as_written, isic2018");
}

void validate(const Config& c) {
  expect_positive(where, "image", c.image, 2);
  expect_positive(where, 
      "in_channels, classes, decoder_layers, efficient_heads, channel_heads, cross_heads",
      {c.in_channels, c.classes, c.decoder_layers, c.efficient_heads, c.channel_heads,
       c.cross_heads},
      6);
  check_widths(c);
  check_skips(c);
  const int64_t unit = int64_t{4} << (c.dims.size() - 1);
  for (int64_t size : c.image)
    if (size % unit != 0)
      fail(where, "image " + text(c.image) + " is not a multiple of " + std::to_string(unit) +
                      ": the decoder doubles the deepest grid back to the image");
  if (c.repeat_fc1 && c.token_mlp != TokenMlp::mix_skip)
    fail(where,
         "repeat_fc1 makes no sense with a token_mlp other than mix_skip: only that one calls its "
         "first layer twice");
}

}  // namespace voxlab::dae_former
