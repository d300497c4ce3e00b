// Planning, applying and undoing of preprocessing.
#include "experiments/data/preprocess.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/data/resample.h"
#include "runtime/core/allocator.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

using nlohmann::json;

Normalisation scheme_for(NormaliseBy choice, std::string channel) {
  std::transform(channel.begin(), channel.end(), channel.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  switch (choice) {
    case NormaliseBy::automatic:
      return channel == "ct"           ? Normalisation::ct
             : channel == "nonorm"     ? Normalisation::none
             : channel == "rgb_to_0_1" ? Normalisation::fixed
                                       : Normalisation::zscore;
    case NormaliseBy::zscore:
      return Normalisation::zscore;
    case NormaliseBy::ct:
      return Normalisation::ct;
    case NormaliseBy::ct2:
      return Normalisation::ct2;
    case NormaliseBy::fixed:
      return Normalisation::fixed;
    case NormaliseBy::none:
      return Normalisation::none;
  }
  fail("preprocess.normalise", "unknown value");
}

bool uses_ct(const PreprocessConfig& config, const Dataset& dataset) {
  return std::any_of(dataset.channels.begin(), dataset.channels.end(),
                     [&](const std::string& channel) {
                       const Normalisation scheme = scheme_for(config.normalise, channel);
                       return scheme == Normalisation::ct || scheme == Normalisation::ct2;
                     });
}

void check(const PreprocessConfig& config) {
  if (!config.spacing.empty() && config.spacing.size() != 3)
    fail("preprocess.spacing",
         fmt::format("expected three numbers z, y, x, got {}", config.spacing.size()));
  for (double value : config.spacing)
    if (!(value > 0) || !std::isfinite(value))
      fail("preprocess.spacing", fmt::format("expected millimetres above 0, got {}", value));
  if (!config.size.empty()) {
    if (config.size.size() != 2 && config.size.size() != 3)
      fail("preprocess.size",
           fmt::format("expected y, x or z, y, x, got {} numbers", config.size.size()));
    for (int64_t length : config.size)
      if (length < 1 || length > 4096)
        fail("preprocess.size", fmt::format("expected 1 to 4096 voxels, got {}", length));
    if (!config.spacing.empty() || !config.resample)
      fail("preprocess.size", "goes with neither a spacing nor resample = false");
  }
  for (double each : config.sd)
    if (!(each > 0)) fail("preprocess.sd", fmt::format("expected numbers above 0, got {}", each));
  for (int64_t order : {config.image_order, config.label_order, config.score_order})
    if (order != 0 && order != 1 && order != 3)
      fail("preprocess", fmt::format("spline orders are 0, 1 or 3, got {}", order));
}

// The given mean and sd of channel c; nnU-Net v2's rgb_to_0_1 where none is given.
IntensityStats fixed_stats(const PreprocessConfig& config, size_t c, size_t channels) {
  const auto pick = [&](const std::vector<double>& values, double otherwise, const char* key) {
    if (values.empty()) return otherwise;
    if (values.size() != 1 && values.size() != channels)
      fail(key, fmt::format("expected one number or {}, one a channel, got {}", channels,
                            values.size()));
    return values[values.size() == 1 ? 0 : c];
  };
  return {.mean = pick(config.mean, 0, "preprocess.mean"),
          .sd = pick(config.sd, 255, "preprocess.sd")};
}

}  // namespace

ResampleRule rule_for(const CaseGeometry& g, int order) {
  return {
      .order = order, .separate_axis = separate_axis(g.file_spacing, g.spacing), .order_across = 0};
}

PreprocessPlan make_plan(const PreprocessConfig& config, const Dataset& dataset,
                         const Fingerprint& fingerprint) {
  check(config);
  PreprocessPlan plan{.crop = config.crop,
                      .spacing = std::nullopt,
                      .size = std::nullopt,
                      .channels = {},
                      .image_order = static_cast<int>(config.image_order),
                      .label_order = static_cast<int>(config.label_order),
                      .score_order = static_cast<int>(config.score_order)};
  if (config.size.size() == 2)
    plan.size = Size3{0, config.size[0], config.size[1]};
  else if (config.size.size() == 3)
    plan.size = Size3{config.size[0], config.size[1], config.size[2]};
  else if (config.resample)
    plan.spacing = config.spacing.empty()
                       ? fingerprint.target_spacing()
                       : Spacing3{config.spacing[0], config.spacing[1], config.spacing[2]};
  for (size_t c = 0; c < dataset.channels.size(); ++c) {
    ChannelNormalisation channel;
    channel.scheme = scheme_for(config.normalise, dataset.channels[c]);
    const bool ct = channel.scheme == Normalisation::ct || channel.scheme == Normalisation::ct2;
    channel.inside_only =
        config.nonzero_mask == NonzeroMask::always ||
        (config.nonzero_mask == NonzeroMask::automatic && !ct && fingerprint.crop_ratio() < 0.75);
    if (ct && c < fingerprint.foreground.size()) channel.foreground = fingerprint.foreground[c];
    if (channel.scheme == Normalisation::fixed)
      channel.foreground = fixed_stats(config, c, dataset.channels.size());
    plan.channels.push_back(channel);
  }
  return plan;
}

PreprocessPlan make_plan(const PreprocessConfig& config, const Dataset& dataset,
                         const std::filesystem::path& cache_folder) {
  check(config);
  const bool asks = (config.resample && config.spacing.empty() && config.size.empty()) ||
                    config.nonzero_mask == NonzeroMask::automatic || uses_ct(config, dataset);
  return make_plan(config, dataset,
                   asks ? fingerprint_of(dataset, dataset.train, cache_folder) : Fingerprint{});
}

Prepared preprocess(Volume volume, Tensor labels, const PreprocessPlan& plan) {
  const bool labelled = bool(labels);
  const bool marks = labelled || std::any_of(plan.channels.begin(), plan.channels.end(),
                                             [](const auto& each) { return each.inside_only; });
  Prepared done;
  CaseGeometry& g = done.geometry;
  g.file_size = volume.size();
  g.file_spacing = g.spacing = volume.spacing;
  g.box = {.begin = {0, 0, 0}, .size = g.file_size};
  Tensor marked;
  if (plan.crop || marks) {
    const Tensor mask = nonzero_mask(volume.voxels);
    if (plan.crop) g.box = bounding_box(mask);
    if (marks)
      marked = mark_outside(labelled ? crop(labels, g.box) : Tensor(), crop(mask, g.box));
  }
  Tensor image = crop(volume.voxels, g.box);
  // A copy of a large CT is half a GiB: what is used up goes, as far as the caller has let go of it.
  volume.voxels = labels = {};
  release_cached_blocks();
  g.size = g.box.size;
  if (plan.spacing) {
    g.spacing = *plan.spacing;
    g.size = resampled_size(g.box.size, g.file_spacing, g.spacing);
  }
  if (plan.size) {
    for (size_t a = 0; a < 3; ++a) {
      if ((*plan.size)[a] != 0) g.size[a] = (*plan.size)[a];
      g.spacing[a] *= static_cast<double>(g.box.size[a]) / static_cast<double>(g.size[a]);
    }
  }
  if (g.size != g.box.size) {
    image = resample_image(image, g.size, rule_for(g, plan.image_order));
    if (marks) marked = resample_labels(marked, g.size, rule_for(g, plan.label_order));
  }
  normalise(image, marked, plan.channels);
  done.image = image;
  if (labelled) {
    done.label = Tensor::empty(marked.shape(), DType::u8);
    const int32_t* from = marked.data<int32_t>();
    uint8_t* to = done.label.data<uint8_t>();
    for (int64_t v = 0; v < marked.numel(); ++v)
      to[v] = from[v] == outside_label ? uint8_t{0} : static_cast<uint8_t>(from[v]);
  }
  return done;
}

void to_json(json& out, const PreprocessPlan& plan) {
  out = {{"crop", plan.crop},
         {"spacing_zyx", nullptr},
         {"size_zyx", nullptr},
         {"channels", json::array()},
         {"image_order", plan.image_order},
         {"label_order", plan.label_order},
         {"score_order", plan.score_order}};
  if (plan.spacing) out["spacing_zyx"] = *plan.spacing;
  if (plan.size) out["size_zyx"] = *plan.size;
  for (const ChannelNormalisation& each : plan.channels)
    out["channels"].push_back({{"normalise", std::string(to_string(each.scheme))},
                               {"inside_only", each.inside_only},
                               {"foreground", each.foreground}});
}

void from_json(const json& in, PreprocessPlan& plan) {
  plan = {.crop = in.at("crop").get<bool>(),
          .spacing = std::nullopt,
          .size = std::nullopt,
          .channels = {},
          .image_order = in.at("image_order").get<int>(),
          .label_order = in.at("label_order").get<int>(),
          .score_order = in.at("score_order").get<int>()};
  if (!in.at("spacing_zyx").is_null()) plan.spacing = in.at("spacing_zyx").get<Spacing3>();
  if (const json size = in.value("size_zyx", json()); !size.is_null())
    plan.size = size.get<Size3>();
  for (const json& each : in.at("channels"))
    plan.channels.push_back(
        {.scheme = parse_enum<Normalisation>(each.at("normalise").get<std::string>(), "normalise"),
         .inside_only = each.at("inside_only").get<bool>(),
         .foreground = each.at("foreground").get<IntensityStats>()});
}

void to_json(json& out, const CaseGeometry& g) {
  out = {{"file_size", g.file_size}, {"file_spacing", g.file_spacing}, {"box_begin", g.box.begin},
         {"box_size", g.box.size},   {"spacing", g.spacing},           {"size", g.size}};
}

void from_json(const json& in, CaseGeometry& g) {
  g = {.file_size = in.at("file_size").get<Size3>(),
       .file_spacing = in.at("file_spacing").get<Spacing3>(),
       .box = {.begin = in.at("box_begin").get<Size3>(), .size = in.at("box_size").get<Size3>()},
       .spacing = in.at("spacing").get<Spacing3>(),
       .size = in.at("size").get<Size3>()};
}

}  // namespace voxlab
