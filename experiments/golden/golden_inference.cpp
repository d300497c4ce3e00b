// Tile positions, importance maps, and volumes blended from windows of a one-convolution network.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/golden/golden.h"
#include "experiments/inference/sliding_window.h"
#include "runtime/core/error.h"
#include "runtime/core/visit.h"

namespace voxlab {
namespace {

using Json = nlohmann::json;
using Sizes = std::vector<int64_t>;

constexpr double limit_map = 2e-7;  // the maps are float32
constexpr double limit_f64 = 1e-8;  // float64 sums weighted by a float32 map
constexpr double limit_f32 = 2e-6;
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

double largest_value(const std::vector<double>& values) {
  double largest = 0;
  for (double v : values) largest = std::max(largest, std::abs(v));
  return largest;
}

// Compares a tensor, given in the record's (channels-first) order, with the record's summary of it:
// single values relative to the largest one, norm and probe relative to the norm.
void compare_summary(GoldenReport& report, const std::string& title, const std::vector<double>& got,
                     const Json& expected, double limit) {
  const auto n = static_cast<double>(got.size());
  const Shape shape(std::span<const int64_t>(expected.at("shape").get<Sizes>()));
  if (static_cast<double>(shape.numel()) != n)
    return report.add(title, nan, limit, "expected shape " + shape.to_string());
  const auto probe =
      golden_fill("probe:" + expected.at("name").get<std::string>(), shape.numel(), 1, 0);
  double sum = 0, squares = 0, probed = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    sum += got[i];
    squares += got[i] * got[i];
    probed += got[i] * probe[i];
  }
  double spread = 0;
  for (double v : got) spread += (v - sum / n) * (v - sum / n);
  const double absmax = expected.at("absmax").get<double>(),
               norm = expected.at("norm").get<double>();
  double worst = 0;
  std::string which = "samples";
  const auto check = [&](const char* name, double value, double reference, double scale) {
    const double error = std::abs(value - reference) / std::max(scale, 1e-30);
    if (!(error <= worst)) {
      worst = error;
      which = name;
    }
  };
  check("mean", sum / n, expected.at("mean"), absmax);
  check("std", std::sqrt(spread / n), expected.at("std"), absmax);
  check("absmax", largest_value(got), absmax, absmax);
  check("norm", std::sqrt(squares), norm, norm);
  check("probe", probed, expected.at("probe"), norm);
  for (const Json& sample : expected.at("samples")) {
    const auto index = sample.at(0).get<int64_t>();
    if (index < 0 || index >= shape.numel()) fail(title, "sample outside of the tensor");
    check("samples", got[static_cast<size_t>(index)], sample.at(1), absmax);
  }
  report.add(title, worst, limit, "worst: " + which);
}

void compare_map(GoldenReport& report, TileStyle style, const Sizes& patch, const Json& expected) {
  const std::string title = std::string(to_string(style)) + " map " + Json(patch).dump();
  const std::vector<float> map = gaussian_importance(style, patch);
  const std::vector<double> got(map.begin(), map.end());
  compare_summary(report, title, got, expected, limit_map);
  const double smallest = *std::min_element(got.begin(), got.end());
  const auto minimum = expected.at("min").get<double>();
  report.add(title + " min", std::abs(smallest - minimum) / minimum, limit_map);
  double sum = 0;
  for (double v : got) sum += v;
  const auto total = expected.at("sum").get<double>();
  report.add(title + " sum", std::abs(sum - total) / total, limit_map);

  int64_t offset = 0;  // the line along the last axis through n / 2 of the others
  for (size_t a = 0; a + 1 < patch.size(); ++a) offset = (offset + patch[a] / 2) * patch[a + 1];
  const auto line = expected.at("line_last_axis_at_centre").get<std::vector<double>>();
  double worst = static_cast<int64_t>(line.size()) == patch.back() ? 0 : nan;
  for (size_t i = 0; i < line.size() && worst == worst; ++i)
    worst = std::max(worst, std::abs(got[offset + i] - line[i]) / line[i]);
  report.add(title + " line", worst, limit_map);
}

void compare_starts(GoldenReport& report, TileStyle style, const Json& entry, const char* patch_key,
                    const char* amount_key) {
  const auto image = entry.at("image").get<Sizes>(), patch = entry.at(patch_key).get<Sizes>();
  const auto amount = entry.at(amount_key).get<double>();
  std::vector<Sizes> starts;
  int64_t windows = 1;
  for (size_t a = 0; a < image.size(); ++a) {
    const int64_t padded = std::max(image[a], patch.at(a));
    starts.push_back(style == TileStyle::nnunet ? nnunet_tile_starts(padded, patch[a], amount)
                                                : monai_tile_starts(padded, patch[a], amount));
    windows *= static_cast<int64_t>(starts.back().size());
  }
  const bool same =
      Json(starts) == entry.at("starts") && entry.value("windows", windows) == windows;
  report.add(std::string(to_string(style)) + " starts " + entry.at("image").dump() + " " +
                 entry.at(patch_key).dump() + " " + entry.at(amount_key).dump(),
             same ? 0 : 1, 0, same ? "" : "got " + Json(starts).dump());
}

// y = convolution of odd size, zero padding at the window's border, bias.
struct Convolution {
  Sizes shape;  // (K, C, [d,] h, w)
  std::vector<float> weight, bias;

  explicit Convolution(const Json& manifest) {
    for (const Json& entry : manifest) {
      const auto name = entry.at("name").get<std::string>();
      const auto sizes = entry.at("shape").get<Sizes>();
      const auto values =
          golden_fill(name, Shape(std::span<const int64_t>(sizes)).numel(), entry.at("scale"),
                      entry.at("offset"), entry.value("half", false));
      if (name == "conv.weight") {
        weight = values;
        shape = sizes;
      } else if (name == "conv.bias") {
        bias = values;
      } else {
        fail("manifest", "expected conv.weight and conv.bias, got " + name);
      }
    }
    if (shape.size() != 4 && shape.size() != 5)
      fail("manifest", "expected a 2-d or 3-d conv.weight");
    if (static_cast<int64_t>(bias.size()) != shape[0]) fail("manifest", "conv.bias does not fit");
  }

  int rank() const { return static_cast<int>(shape.size()) - 2; }
  int64_t classes() const { return shape[0]; }
  int64_t channels() const { return shape[1]; }

  template <class T>
  Tensor run(const Tensor& x) const {
    Shape out_shape = x.shape();
    out_shape.set(-1, classes());
    const Tensor y = Tensor::empty(out_shape, x.dtype(), x.device());
    const bool flat = rank() == 2;
    const int64_t depth = flat ? 1 : x.size(1), height = x.size(-3), width = x.size(-2);
    const int64_t kd = flat ? 1 : shape[2], kh = shape[shape.size() - 2], kw = shape.back();
    const int64_t cells = depth * height * width, taps = kd * kh * kw;
    for (int64_t i = 0; i < x.size(0) * cells; ++i) {
      const int64_t n = i / cells, d = i / (height * width) % depth, h = i / width % height,
                    w = i % width;
      for (int64_t k = 0; k < classes(); ++k) {
        T sum = bias[k];
        for (int64_t t = 0; t < taps; ++t) {
          const int64_t z = d + t / (kh * kw) - kd / 2, r = h + t / kw % kh - kh / 2,
                        c = w + t % kw - kw / 2;
          if (z < 0 || z >= depth || r < 0 || r >= height || c < 0 || c >= width) continue;
          const T* pixel = x.data<T>() + (n * cells + (z * height + r) * width + c) * channels();
          for (int64_t ch = 0; ch < channels(); ++ch)
            sum += static_cast<T>(weight[(k * channels() + ch) * taps + t]) * pixel[ch];
        }
        y.data<T>()[i * classes() + k] = sum;
      }
    }
    return y;
  }
};

// The record's input for (N, C, image), as (N, image, C).
Tensor make_volume(int64_t batch, int64_t channels, const Sizes& image, DType dtype) {
  Shape shape{batch};
  int64_t cells = 1;
  for (int64_t size : image) {
    shape.push_back(size);
    cells *= size;
  }
  shape.push_back(channels);
  const auto values = golden_fill("input:volume", shape.numel(), std::sqrt(3.0), 0);
  std::vector<double> ordered(values.size());
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = 0; i < cells; ++i)
        ordered[(n * cells + i) * channels + c] = values[(n * channels + c) * cells + i];
  return Tensor::from_span(shape, std::span<const double>(ordered)).to(dtype);
}

// (N, image, K) -> values in the order (N, K, image).
std::vector<double> channels_first(const Tensor& t) {
  const std::vector<double> values = t.to_vector();
  const int64_t batch = t.size(0), channels = t.size(-1), cells = t.numel() / (batch * channels);
  std::vector<double> out(values.size());
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t i = 0; i < cells; ++i)
      for (int64_t c = 0; c < channels; ++c)
        out[(n * channels + c) * cells + i] = values[(n * cells + i) * channels + c];
  return out;
}

struct Setup {
  const Convolution& network;
  DType dtype;

  std::vector<double> predict(const Json& entry, const char* patch_key,
                              SlidingWindowOptions options) const {
    const auto image = entry.at("image").get<Sizes>();
    options.patch = entry.at(patch_key).get<Sizes>();
    options.accumulate = dtype;
    options.batch = 2;
    const Tensor volume =
        make_volume(entry.value("batch", int64_t{1}), network.channels(), image, dtype);
    return channels_first(sliding_window(
        volume,
        [&](const Tensor& x) {
          return dtype == DType::f64 ? network.run<double>(x) : network.run<float>(x);
        },
        options));
  }
};

void compare_counts(GoldenReport& report, const std::string& title, const Sizes& got,
                    const Json& expected, int64_t uncertain) {
  const auto counts = expected.get<Sizes>();
  int64_t difference = counts.size() == got.size() ? 0 : 1 << 20;
  for (size_t i = 0; i < std::min(counts.size(), got.size()); ++i)
    difference += std::abs(counts[i] - got[i]);
  report.add(title, static_cast<double>(difference), static_cast<double>(2 * uncertain),
             "voxels counted differently");
}

void compare_nnunet(GoldenReport& report, const Setup& setup, const Json& entry) {
  const std::string name = entry.at("probability").at("name").get<std::string>();
  compare_starts(report, TileStyle::nnunet, entry, "patch", "step");
  const std::vector<double> got =
      setup.predict(entry, "patch",
                    {.patch = {},
                     .style = TileStyle::nnunet,
                     .step = entry.at("step"),
                     .gaussian = entry.at("gaussian"),
                     .mirror_axes = entry.at("mirror_axes").get<Sizes>(),
                     .activation = OutputActivation::sigmoid,
                     .progress = {}});
  const double limit = setup.dtype == DType::f64 ? limit_f64 : golden_bound(current_arithmetic()).of(limit_f32);
  compare_summary(report, name, got, entry.at("probability"), limit);

  const int64_t classes = setup.network.classes();
  const int64_t cells = static_cast<int64_t>(got.size()) / classes;
  Sizes labels(classes + 1, 0), argmax(classes, 0);
  for (int64_t i = 0; i < cells; ++i) {
    int64_t label = 0, best = 0;
    for (int64_t c = 0; c < classes; ++c) {
      if (got[c * cells + i] > 0.5) label = c + 1;
      if (got[c * cells + i] > got[best * cells + i]) best = c;
    }
    ++labels[label];
    ++argmax[best];
  }
  if (entry.contains("labels"))
    compare_counts(report, name + " labels", labels, entry.at("labels").at("counts"),
                   entry.at("labels").value("voxels_within_1e-5_of_threshold", 0));
  if (entry.contains("argmax_counts"))
    compare_counts(report, name + " argmax", argmax, entry.at("argmax_counts"),
                   setup.dtype == DType::f64 ? 0 : 1);
}

void compare_monai(GoldenReport& report, const Setup& setup, const Json& entry) {
  const double limit = setup.dtype == DType::f64 ? limit_f64 : golden_bound(current_arithmetic()).of(limit_f32);
  for (const auto& [key, activation] : {std::pair{"sigmoid_then_blend", OutputActivation::sigmoid},
                                        std::pair{"logits_blend", OutputActivation::none}}) {
    if (!entry.contains(key)) continue;
    const auto mode = entry.at("mode").get<std::string>();
    if (mode != "gaussian" && mode != "constant") fail("mode", "unknown mode " + mode);
    const std::vector<double> got = setup.predict(entry, "roi",
                                                  {.patch = {},
                                                   .style = TileStyle::monai,
                                                   .overlap = entry.at("overlap"),
                                                   .gaussian = mode == "gaussian",
                                                   .mirror_axes = {},
                                                   .activation = activation,
                                                   .progress = {}});
    compare_summary(report, entry.at(key).at("name").get<std::string>(), got, entry.at(key), limit);
  }
}

}  // namespace

GoldenReport golden_inference(const std::filesystem::path& file, const nlohmann::json& record,
                              const GoldenOptions& options) {
  GoldenReport report;
  report.file = file.string();
  report.kind = "inference";
  if (record.contains("maps")) {
    for (const Json& entry : record.at("maps"))
      for (const TileStyle style : {TileStyle::nnunet, TileStyle::monai})
        if (const auto key = std::string(to_string(style)); entry.contains(key))
          compare_map(report, style, entry.at("patch").get<Sizes>(), entry.at(key));
  }
  if (record.contains("nnunet"))
    for (const Json& entry : record.at("nnunet"))
      compare_starts(report, TileStyle::nnunet, entry, "patch", "step");
  if (record.contains("monai"))
    for (const Json& entry : record.at("monai"))
      compare_starts(report, TileStyle::monai, entry, "roi", "overlap");
  if (record.contains("cases")) {
    const Convolution network(record.at("manifest"));
    const bool f64 = options.dtype == DType::f64 || options.device == Device::ref;
    const Setup setup{network, f64 ? DType::f64 : DType::f32};
    for (const Json& entry : record.at("cases")) {
      if (entry.contains("patch"))
        compare_nnunet(report, setup, entry);
      else
        compare_monai(report, setup, entry);
    }
  }
  return report;
}

}  // namespace voxlab
