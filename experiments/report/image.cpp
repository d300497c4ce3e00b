#include "experiments/report/image.h"

#include <fmt/format.h>
#include <png.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "runtime/core/error.h"
#include "runtime/io/file.h"

namespace voxlab {
namespace {

constexpr int64_t gap = 8;      // between panels
constexpr int64_t swatch = 16;  // side of a legend square
constexpr Rgb background = {255, 255, 255};

// What lies outside these percentiles is a few bright vessels or padding, and would flatten the
// rest.
std::pair<float, float> shown_range(std::span<const float> values) {
  std::vector<float> sorted;
  for (float value : values)
    if (std::isfinite(value)) sorted.push_back(value);
  if (sorted.empty()) return {0, 1};
  const auto at = [&](double fraction) {
    const auto index = static_cast<ptrdiff_t>(fraction * static_cast<double>(sorted.size() - 1));
    std::nth_element(sorted.begin(), sorted.begin() + index, sorted.end());
    return sorted[static_cast<size_t>(index)];
  };
  const float low = at(0.005), high = at(0.995);
  return {low, high > low ? high : low + 1};
}

uint8_t mix(uint8_t a, uint8_t b) { return static_cast<uint8_t>((a + b + 1) / 2); }

void draw_panel(Image& out, int64_t left, int64_t factor, const SliceView& view,
                std::pair<float, float> range, std::span<const int64_t> labels) {
  for (int64_t y = 0; y < view.height; ++y) {
    for (int64_t x = 0; x < view.width; ++x) {
      const auto index = static_cast<size_t>(y * view.width + x);
      const float unit = (view.values[index] - range.first) / (range.second - range.first);
      const float clipped = std::isfinite(unit) ? std::clamp(unit, 0.0f, 1.0f) : 0.0f;
      const auto grey = static_cast<uint8_t>(std::lround(clipped * 255));
      Rgb colour = {grey, grey, grey};
      if (!labels.empty() && labels[index] != 0) {
        const Rgb over = label_colour(labels[index]);
        colour = {mix(grey, over.red), mix(grey, over.green), mix(grey, over.blue)};
      }
      for (int64_t dy = 0; dy < factor; ++dy)
        for (int64_t dx = 0; dx < factor; ++dx)
          out.at(left + x * factor + dx, y * factor + dy) = colour;
    }
  }
}

void check(const SliceView& view) {
  const auto size = static_cast<size_t>(view.width * view.height);
  if (view.width < 1 || view.height < 1 || view.values.size() != size ||
      (!view.truth.empty() && view.truth.size() != size) ||
      (!view.prediction.empty() && view.prediction.size() != size))
    fail(
        "slice_panels",
        fmt::format("a {}x{} slice has {} values, {} true labels and {} predicted ones", view.width,
                    view.height, view.values.size(), view.truth.size(), view.prediction.size()));
}

}  // namespace

Image::Image(int64_t width_, int64_t height_, Rgb fill)
    : width(width_), height(height_), pixels(static_cast<size_t>(width_ * height_), fill) {}

void write_png(const std::filesystem::path& path, const Image& image) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = PNG_FORMAT_RGB;
  static_assert(sizeof(Rgb) == 3);
  png_alloc_size_t size = 0;
  // The first call only asks for the size.
  if (!png_image_write_get_memory_size(png, size, 0, image.pixels.data(), 0, nullptr))
    fail(path.string(), fmt::format("cannot encode: {}", png.message));
  std::vector<std::byte> bytes(size);
  if (!png_image_write_to_memory(&png, bytes.data(), &size, 0, image.pixels.data(), 0, nullptr))
    fail(path.string(), fmt::format("cannot encode: {}", png.message));
  AtomicFile file(path);
  file.write(std::span(bytes).first(size));
  file.commit();
}

Rgb label_colour(int64_t label) {
  constexpr std::array<Rgb, 8> colours = {{{230, 159, 0},
                                           {86, 180, 233},
                                           {0, 158, 115},
                                           {240, 228, 66},
                                           {0, 114, 178},
                                           {213, 94, 0},
                                           {204, 121, 167},
                                           {153, 102, 51}}};
  if (label == 0) return {};
  const int64_t n = static_cast<int64_t>(colours.size());
  return colours[static_cast<size_t>(((label - 1) % n + n) % n)];
}

Image slice_panels(const SliceView& view) {
  check(view);
  std::vector<std::span<const int64_t>> panels = {{}};
  if (!view.truth.empty()) panels.push_back(view.truth);
  if (!view.prediction.empty()) panels.push_back(view.prediction);
  std::set<int64_t> labels;
  for (const auto& panel : panels) labels.insert(panel.begin(), panel.end());
  labels.erase(0);

  constexpr int64_t wanted = 256;
  const int64_t longest = std::max(view.width, view.height);
  const int64_t factor = std::max<int64_t>(1, (wanted + longest - 1) / longest);
  const int64_t width = view.width * factor, height = view.height * factor;
  const auto count = static_cast<int64_t>(panels.size());
  const int64_t total_width = count * width + (count - 1) * gap;
  const int64_t a_row = std::max<int64_t>(1, (total_width + gap) / (swatch + gap));
  const auto label_rows = (static_cast<int64_t>(labels.size()) + a_row - 1) / a_row;
  Image out(total_width, height + label_rows * (swatch + gap), background);
  const auto range = shown_range(view.values);
  for (int64_t i = 0; i < count; ++i)
    draw_panel(out, i * (width + gap), factor, view, range, panels[static_cast<size_t>(i)]);
  int64_t index = 0;
  for (int64_t label : labels) {
    const int64_t left = index % a_row * (swatch + gap);
    const int64_t top = height + gap + index / a_row * (swatch + gap);
    for (int64_t y = 0; y < swatch; ++y)
      for (int64_t x = 0; x < std::min(swatch, total_width - left); ++x)
        out.at(left + x, top + y) = label_colour(label);
    ++index;
  }
  return out;
}

}  // namespace voxlab
