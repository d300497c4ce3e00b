// PNG pictures of a slice with its labels. Plain RGB; no text is drawn.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace voxlab {

struct Rgb {
  uint8_t red = 0, green = 0, blue = 0;
  bool operator==(const Rgb&) const = default;
};

struct Image {
  int64_t width = 0, height = 0;
  std::vector<Rgb> pixels;  // row by row
  Image() = default;
  Image(int64_t width, int64_t height, Rgb fill = {});
  Rgb& at(int64_t x, int64_t y) { return pixels[static_cast<size_t>(y * width + x)]; }
  Rgb at(int64_t x, int64_t y) const { return pixels[static_cast<size_t>(y * width + x)]; }
};

// Complete under its name or not at all.
void write_png(const std::filesystem::path& path, const Image& image);

// Colours that stay apart for most colour-blind eyes (Okabe and Ito); label 0 has none.
Rgb label_colour(int64_t label);

struct SliceView {
  int64_t width = 0, height = 0;
  std::span<const float> values;   // row by row; shown from the 0.5th to the 99.5th percentile
  std::span<const int64_t> truth;  // labels; empty: the panel is left out
  std::span<const int64_t> prediction;
};

// Image, truth and prediction side by side, labels laid over the image at half strength, and below
// the colours of the labels that occur, in the order of their numbers. Small slices are enlarged by
// a whole factor until a panel has at least 256 rows or columns.
Image slice_panels(const SliceView& view);

}  // namespace voxlab
