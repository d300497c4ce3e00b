// What PNG and JPEG have in common: choice of the decoder, channels, and the writing of labels.
#include "experiments/data/raster.h"

#include <fmt/format.h>
#include <png.h>

#include <algorithm>
#include <vector>

#include "experiments/data/raster_decode.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"

namespace voxlab {
namespace {

bool starts_with(std::span<const std::byte> bytes, std::initializer_list<int> magic) {
  return bytes.size() >= magic.size() &&
         std::equal(magic.begin(), magic.end(), bytes.begin(),
                    [](int a, std::byte b) { return std::byte(a) == b; });
}

// One channel out of three that agree everywhere.
std::vector<uint16_t> only_grey(const Pixels& pixels, const std::string& name) {
  std::vector<uint16_t> grey(pixels.samples.size() / 3);
  for (size_t v = 0; v < grey.size(); ++v) {
    const uint16_t* rgb = pixels.samples.data() + 3 * v;
    if (rgb[0] != rgb[1] || rgb[0] != rgb[2])
      fail(name, fmt::format("expected one label a pixel, got the colour ({}, {}, {}) at (y, x) = "
                             "({}, {})",
                             rgb[0], rgb[1], rgb[2], int64_t(v) / pixels.width,
                             int64_t(v) % pixels.width));
    grey[v] = rgb[0];
  }
  return grey;
}

}  // namespace

bool is_raster(const std::filesystem::path& file) {
  std::string ending = file.extension().string();
  for (char& c : ending)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return ending == ".png" || ending == ".jpg" || ending == ".jpeg";
}

Raster read_raster(std::span<const std::byte> bytes, const std::string& name, RasterUse use) {
  const bool png = starts_with(bytes, {0x89, 'P', 'N', 'G'});
  if (!png && !starts_with(bytes, {0xff, 0xd8, 0xff})) fail(name, "neither a PNG nor a JPEG file");
  const bool labels = use == RasterUse::labels;
  Pixels pixels = png ? decode_png(bytes, name, labels) : decode_jpeg(bytes, name, labels);
  if (labels && pixels.channels == 3) {
    pixels.samples = only_grey(pixels, name);
    pixels.channels = 1;
  }
  const Shape shape{1, pixels.height, pixels.width, pixels.channels};
  Raster raster{.lossy = !png};
  raster.volume.affine = {{{-1, 0, 0, 0}, {0, -1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}};
  Tensor& voxels = raster.volume.voxels;
  if (pixels.deep) {
    voxels = Tensor::empty(shape, DType::i32);
    std::copy(pixels.samples.begin(), pixels.samples.end(), voxels.data<int32_t>());
  } else {
    voxels = Tensor::empty(shape, DType::u8);
    std::transform(pixels.samples.begin(), pixels.samples.end(), voxels.data<uint8_t>(),
                   [](uint16_t sample) { return static_cast<uint8_t>(sample); });
  }
  return raster;
}

Raster read_raster(const std::filesystem::path& file, RasterUse use) {
  const auto bytes = FileBytes::open(file);
  return read_raster(bytes->bytes(), bytes->name(), use);
}

void check_pixels(const std::string& name, int64_t width, int64_t height, int64_t most) {
  if (width < 1 || height < 1 || width > longest_side || height > longest_side ||
      width > most_pixels / height)
    fail(name, fmt::format("a picture of {} x {} pixels; at most {} a side and {} in all are read",
                           width, height, longest_side, most_pixels));
  if (width > most / height)
    fail(name, fmt::format("the header announces {} x {} pixels; the file can hold only {}", width,
                           height, most));
}

void write_label_png(const std::filesystem::path& file, const Tensor& labels) {
  const int rank = labels.rank();
  if (labels.dtype() != DType::i32 || rank < 2 || rank > 3 || (rank == 3 && labels.size(0) != 1))
    fail(file.string(), "a PNG holds one slice of labels, got " + labels.meta().to_string());
  const Tensor dense = labels.contiguous() ? labels : labels.clone();
  std::vector<uint8_t> grey;
  for (int64_t v = 0; v < dense.numel(); ++v) {
    const int32_t label = dense.data<int32_t>()[v];
    if (label < 0 || label > 255)
      fail(file.string(), fmt::format("label {} does not fit into a byte of a PNG", label));
    grey.push_back(static_cast<uint8_t>(label));
  }
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(labels.size(-1));
  png.height = static_cast<png_uint_32>(labels.size(-2));
  png.format = PNG_FORMAT_GRAY;
  png_alloc_size_t size = 0;
  // The first call only asks for the size.
  if (!png_image_write_get_memory_size(png, size, 0, grey.data(), 0, nullptr))
    fail(file.string(), fmt::format("cannot encode: {}", png.message));
  std::vector<std::byte> bytes(size);
  if (!png_image_write_to_memory(&png, bytes.data(), &size, 0, grey.data(), 0, nullptr))
    fail(file.string(), fmt::format("cannot encode: {}", png.message));
  AtomicFile out(file);
  out.write(std::span(bytes).first(size));
  out.commit();
}

}  // namespace voxlab
