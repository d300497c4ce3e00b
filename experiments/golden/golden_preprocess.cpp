// Records of preprocessing: cropping, resampling and normalisation, as nnU-Net v1's own code does
// them.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "experiments/data/crop.h"
#include "experiments/data/normalise.h"
#include "experiments/data/resample.h"
#include "experiments/golden/golden.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

using nlohmann::json;

constexpr double digits_12 = 1e-11;  // records hold 12 significant digits

struct Shape4 {
  int64_t c = 0, d = 0, h = 0, w = 0;
  int64_t voxels() const { return d * h * w; }
};

Shape4 shape_of(const json& sizes) {
  return {sizes.at(0).get<int64_t>(), sizes.at(1).get<int64_t>(), sizes.at(2).get<int64_t>(),
          sizes.at(3).get<int64_t>()};
}

Spacing3 spacing_of(const json& values) {
  return {values.at(0).get<double>(), values.at(1).get<double>(), values.at(2).get<double>()};
}

// The records' volume rule, times scale plus offset, as (D, H, W, C) f64.
Tensor volume_rule(const Shape4& s, double scale = 1, double offset = 0) {
  const std::vector<float> u = golden_fill("input:volume", s.c * s.voxels(), std::sqrt(3.0), 0);
  Tensor image = Tensor::empty({s.d, s.h, s.w, s.c}, DType::f64);
  double* values = image.data<double>();
  for (int64_t c = 0; c < s.c; ++c)
    for (int64_t v = 0; v < s.voxels(); ++v)
      values[v * s.c + c] = static_cast<double>(u[size_t(c * s.voxels() + v)]) * scale + offset;
  return image;
}

// Labels 0 to 3 in blocks of 3 x 4 x 4 voxels.
Tensor label_rule(const Shape4& s) {
  const int64_t by = (s.h + 3) / 4, bx = (s.w + 3) / 4;
  const uint64_t hash = fnv1a64("input:labels");
  Tensor labels = Tensor::empty({s.d, s.h, s.w}, DType::i32);
  int32_t* values = labels.data<int32_t>();
  for (int64_t z = 0; z < s.d; ++z)
    for (int64_t y = 0; y < s.h; ++y)
      for (int64_t x = 0; x < s.w; ++x)
        *values++ = static_cast<int32_t>(
            std::floor(golden_uniform(hash, (z / 3 * by + y / 4) * bx + x / 4) * 4));
  return labels;
}

std::vector<double> channels_first(const Tensor& image) {
  const std::vector<double> values = image.to_vector();
  const int64_t channels = image.size(3), voxels = image.numel() / channels;
  std::vector<double> moved(values.size());
  for (int64_t v = 0; v < voxels; ++v)
    for (int64_t c = 0; c < channels; ++c)
      moved[size_t(c * voxels + v)] = values[size_t(v * channels + c)];
  return moved;
}

void compare_summary(GoldenReport& report, const std::string& name, const Tensor& image,
                     const json& want) {
  const std::vector<double> t = channels_first(image);
  const auto count = static_cast<int64_t>(t.size());
  const std::vector<float> p =
      golden_fill("probe:" + want.at("name").get<std::string>(), count, 1, 0);
  double sum = 0, squares = 0, probe = 0, absmax = 0;
  for (size_t i = 0; i < t.size(); ++i) {
    sum += t[i];
    squares += t[i] * t[i];
    probe += t[i] * static_cast<double>(p[i]);
    absmax = std::max(absmax, std::abs(t[i]));
  }
  const double norm = want.at("norm").get<double>(), n = static_cast<double>(count);
  const double mean = sum / n;
  double deviation = 0, samples = 0;
  for (double value : t) deviation += (value - mean) * (value - mean);
  for (const json& sample : want.at("samples")) {
    const auto i = sample.at(0).get<int64_t>();
    if (i < 0 || i >= count) fail(report.file, "a sample lies outside the tensor: sizes differ");
    samples = std::max(samples, std::abs(t[size_t(i)] - sample.at(1).get<double>()));
  }
  const double figures = std::max(
      {std::abs(mean - want.at("mean").get<double>()) * std::sqrt(n),
       std::abs(std::sqrt(deviation / n) - want.at("std").get<double>()) * std::sqrt(n),
       std::abs(std::sqrt(squares) - norm), std::abs(probe - want.at("probe").get<double>())});
  const double scale = want.at("absmax").get<double>();
  report.add(name + " figures", figures / norm, digits_12, "mean, std, norm, probe");
  report.add(name + " samples", std::max(samples, std::abs(absmax - scale)) / scale, digits_12);
}

// Voxels whose label differs from the record's run lengths, ties left out.
void compare_labels(GoldenReport& report, const std::string& name, const Tensor& labels,
                    const json& rle, const json& ties) {
  std::vector<int32_t> want;
  for (size_t i = 0; i + 1 < rle.size(); i += 2) {
    const auto run = rle.at(i + 1).get<int64_t>();
    if (run < 0 || run > labels.numel()) fail(report.file, "a run length is out of range");
    want.insert(want.end(), size_t(run), rle.at(i).get<int32_t>());
  }
  const int32_t* got = labels.data<int32_t>();
  if (static_cast<int64_t>(want.size()) != labels.numel()) {
    report.add(name, std::numeric_limits<double>::infinity(), 0, "sizes differ");
    return;
  }
  const auto tied = ties.get<std::vector<int64_t>>();
  for (int64_t i : tied)
    if (i >= 0 && i < labels.numel()) want[size_t(i)] = got[i];
  double wrong = 0;
  for (int64_t v = 0; v < labels.numel(); ++v) wrong += got[v] != want[size_t(v)];
  report.add(name, wrong, 0,
             tied.empty() ? "voxels that differ"
                          : fmt::format("voxels that differ, {} ties left out", tied.size()));
}

void compare_counts(GoldenReport& report, const std::string& name, const Tensor& labels,
                    const json& want) {
  std::map<std::string, int64_t> counts;
  for (double value : labels.to_vector()) ++counts[std::to_string(static_cast<int>(value))];
  report.add(name, counts == want.get<std::map<std::string, int64_t>>() ? 0 : 1, 0);
}

void check_crop(GoldenReport& report, const json& want) {
  const std::string name = want.at("case").get<std::string>();
  const Shape4 s = shape_of(want.at("shape"));
  Tensor image = volume_rule(s);
  double* values = image.data<double>();
  for (int64_t c = 0; c < s.c; ++c) {
    const json& shell = want.at("ellipsoids").at(size_t(c));
    const Spacing3 centre = spacing_of(shell.at("centre")), radius = spacing_of(shell.at("radius"));
    for (int64_t v = 0; v < s.voxels(); ++v) {
      const std::array<double, 3> at{double(v / (s.h * s.w)), double(v / s.w % s.h),
                                     double(v % s.w)};
      double q = 0;
      for (size_t a = 0; a < 3; ++a) q += std::pow((at[a] - centre[a]) / radius[a], 2);
      if (q > 1 || q < 0.15) values[v * s.c + c] = 0;
    }
  }
  const Tensor mask = nonzero_mask(image);
  const Box3 box = bounding_box(mask);
  double box_error = 0;
  for (size_t a = 0; a < 3; ++a) {
    const json& range = want.at("bbox_half_open").at(a);
    box_error += double(std::abs(box.begin[a] - range.at(0).get<int64_t>()));
    box_error += double(std::abs(box.begin[a] + box.size[a] - range.at(1).get<int64_t>()));
  }
  report.add(name + " box", box_error, 0);
  if (box_error != 0) return;
  compare_summary(report, name, crop(image, box), want.at("data"));
  const Tensor cut_mask = crop(mask, box);
  const Tensor marked = mark_outside(crop(label_rule(s), box), cut_mask);
  compare_labels(report, name + " labels", marked, want.at("seg_rle"), json::array());
  if (want.contains("without_seg_counts"))
    compare_counts(report, name + " without labels", mark_outside({}, cut_mask),
                   want.at("without_seg_counts"));
}

void check_resample(GoldenReport& report, const json& want) {
  const std::string name = want.at("case").get<std::string>();
  const Shape4 s = shape_of(want.at("shape")), new_shape = shape_of(want.at("new_shape"));
  const Spacing3 from = spacing_of(want.at("old_spacing")), to = spacing_of(want.at("new_spacing"));
  const Size3 size = resampled_size({s.d, s.h, s.w}, from, to);
  const bool same = size == Size3{new_shape.d, new_shape.h, new_shape.w};
  std::optional<bool> force;
  if (!want.at("force_separate_z").is_null()) force = want.at("force_separate_z").get<bool>();
  ResampleRule rule{.order = 3, .separate_axis = separate_axis(from, to, force)};
  const bool separate = rule.separate_axis >= 0;
  report.add(name + " rule",
             (same ? 0 : 1) + (separate == want.at("separate_z").get<bool>() ? 0 : 1), 0,
             "new size, separate axis");
  if (!same) return;
  const Tensor image = volume_rule(s);
  const Tensor result = resample_image(image, size, rule);
  compare_summary(report, name, result, want.at("data"));

  const std::vector<double> exact = result.to_vector();
  const std::vector<double> stored = resample_image(image.to(DType::f32), size, rule).to_vector();
  double worst = 0;
  for (size_t i = 0; i < exact.size(); ++i) worst = std::max(worst, std::abs(exact[i] - stored[i]));
  const double noise = want.value("float32_storage_max_difference", 0.0);
  report.add(name + " stored as f32", worst, 4 * std::max(noise, 6e-8), "absolute");

  rule.order = want.at("seg_order").get<int>();
  compare_labels(report, name + " labels", resample_labels(label_rule(s), size, rule),
                 want.at("seg_rle"), want.at("seg_ties").at("indices"));
}

IntensityStats stats_of(const json& record) {
  return {.median = record.at("median").get<double>(),
          .mean = record.at("mean").get<double>(),
          .sd = record.at("sd").get<double>(),
          .min = record.at("mn").get<double>(),
          .max = record.at("mx").get<double>(),
          .percentile_00_5 = record.at("percentile_00_5").get<double>(),
          .percentile_99_5 = record.at("percentile_99_5").get<double>(),
          .count = static_cast<int64_t>(record.at("count").get<double>())};
}

Normalisation scheme_of(const std::string& name) {
  if (name == "CT") return Normalisation::ct;
  if (name == "CT2") return Normalisation::ct2;
  if (name == "noNorm") return Normalisation::none;
  return Normalisation::zscore;  // nnU-Net: whatever is not one of these
}

void check_normalise(GoldenReport& report, const json& want) {
  const std::string name = want.at("case").get<std::string>();
  const Shape4 s = shape_of(want.at("shape"));
  double scale = 1, offset = 0;
  const std::string input = want.at("input").get<std::string>();
  if (std::sscanf(input.c_str(), "volume rule * %lf + %lf", &scale, &offset) != 2)
    fail(report.file, "cannot read the input rule '" + input + "'");
  Tensor labels = label_rule(s);
  for (int64_t v = 0; v < s.voxels(); ++v) labels.data<int32_t>()[v] -= 1;
  std::vector<ChannelNormalisation> channels;
  for (int64_t c = 0; c < s.c; ++c) {
    ChannelNormalisation channel{.scheme = scheme_of(want.at("scheme").get<std::string>()),
                                 .inside_only = want.at("use_nonzero_mask").get<bool>(),
                                 .foreground = {}};
    const json& properties = want.at("intensity_properties");
    if (!properties.is_null()) channel.foreground = stats_of(properties.at(std::to_string(c)));
    channels.push_back(channel);
  }
  Tensor image = volume_rule(s, scale, offset);
  Tensor single = image.to(DType::f32);
  normalise(image, labels, channels);
  compare_summary(report, name, image, want.at("out"));
  normalise(single, labels, channels);
  const std::vector<double> exact = image.to_vector(), stored = single.to_vector();
  double worst = 0;
  for (size_t i = 0; i < exact.size(); ++i) worst = std::max(worst, std::abs(exact[i] - stored[i]));
  report.add(name + " stored as f32", worst, 4 * want.value("float32_max_difference", 1e-7),
             "absolute");
}

void check_fingerprint(GoldenReport& report, const json& want) {
  const std::string rule = want.at("rule").get<std::string>();
  int size[4], step = 10;
  double scale = 1, offset = 0;
  if (std::sscanf(rule.c_str(), "volume rule on [%d,%d,%d,%d] * %lf + %lf", &size[0], &size[1],
                  &size[2], &size[3], &scale, &offset) != 6)
    fail(report.file, "cannot read the fingerprint rule '" + rule + "'");
  if (const size_t every = rule.find("every "); every != std::string::npos)
    std::sscanf(rule.c_str() + every, "every %d", &step);
  const Shape4 s{size[0], size[1], size[2], size[3]};
  const std::vector<double> image = channels_first(volume_rule(s, scale, offset));
  const Tensor labels = label_rule(s);
  for (int64_t c = 0; c < s.c; ++c) {
    std::vector<double> values;
    int64_t seen = 0;
    for (int64_t v = 0; v < s.voxels(); ++v)
      if (labels.data<int32_t>()[v] > 0 && seen++ % step == 0)
        values.push_back(image[size_t(c * s.voxels() + v)]);
    const IntensityStats got = intensity_stats(values);
    const IntensityStats expected = stats_of(want.at("values").at(std::to_string(c)));
    const double error = std::max(
        {std::abs(got.median - expected.median), std::abs(got.mean - expected.mean),
         std::abs(got.sd - expected.sd), std::abs(got.min - expected.min),
         std::abs(got.max - expected.max), std::abs(got.percentile_00_5 - expected.percentile_00_5),
         std::abs(got.percentile_99_5 - expected.percentile_99_5),
         double(std::abs(got.count - expected.count))});
    report.add(fmt::format("fingerprint of channel {}", c), error / expected.sd, digits_12);
  }
}

}  // namespace

GoldenReport golden_preprocess(const std::filesystem::path& file, const json& record,
                               const GoldenOptions&) {
  GoldenReport report{.file = file.string(), .kind = "preprocess", .rows = {}};
  for (const json& each : record.at("cases")) {
    if (each.contains("ellipsoids")) {
      check_crop(report, each);
    } else if (each.contains("old_spacing")) {
      check_resample(report, each);
    } else if (each.contains("scheme")) {
      check_normalise(report, each);
    } else {
      fail(file.string(), "a case of no known kind: " + each.value("case", "?"));
    }
  }
  if (record.contains("fingerprint")) check_fingerprint(report, record.at("fingerprint"));
  return report;
}

}  // namespace voxlab
