// 2-d images: PNG and JPEG files as volumes of one slice, and label maps written as PNG.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "experiments/data/volume.h"

namespace voxlab {

// By the name's ending, in any case: .png, .jpg, .jpeg.
bool is_raster(const std::filesystem::path& file);

// image: one channel (grey) or three (RGB; palettes are looked up). labels: one channel, the number
// that stands in the file: a grey value or the index of a palette; RGB counts where its three
// channels agree. Transparency, colour profiles and an EXIF orientation are passed over.
enum class RasterUse : uint8_t { image, labels };

struct Raster {
  // (1, y, x, C) u8, or i32 from 16 bits. A picture has no place in space: spacing 1, so that
  // distances are in pixels, and ITK's axes, x to the left and y to the back.
  Volume volume;
  bool lossy = false;  // JPEG: values are only near what was written
};

// The content decides between PNG and JPEG, not the name. Error, naming the file, for anything that
// is damaged, ends early, or is larger than its bytes can hold.
Raster read_raster(const std::filesystem::path& file, RasterUse use);
Raster read_raster(std::span<const std::byte> bytes, const std::string& name, RasterUse use);

// labels (1, y, x) or (y, x) i32, each 0 to 255, as grey values; complete under its name or not at
// all.
void write_label_png(const std::filesystem::path& file, const Tensor& labels);

}  // namespace voxlab
