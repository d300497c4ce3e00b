// The decoders behind read_raster. libpng and libjpeg report errors by longjmp: each is called in
// stretches that make no object with a destructor, and what it said becomes an Error outside.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace voxlab {

// The largest dermoscopy images have 30 million pixels; twice that is room enough.
constexpr int64_t longest_side = 65535, most_pixels = int64_t{1} << 26;

struct Pixels {
  int64_t width = 0, height = 0, channels = 1;
  bool deep = false;              // 16 bits a sample
  std::vector<uint16_t> samples;  // (y, x, channel)
};

// `labels`: values as stored; otherwise palettes are looked up and 1, 2 and 4 bits spread over 8.
Pixels decode_png(std::span<const std::byte> bytes, const std::string& name, bool labels);

// `labels`: the brightness alone.
Pixels decode_jpeg(std::span<const std::byte> bytes, const std::string& name, bool labels);

// Error unless the size lies within the limits above and `most`, the pixels that the file can hold.
void check_pixels(const std::string& name, int64_t width, int64_t height, int64_t most);

}  // namespace voxlab
