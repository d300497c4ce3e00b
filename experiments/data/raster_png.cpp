// PNG by libpng.
#include <png.h>

#include <algorithm>
#include <bit>
#include <csetjmp>
#include <cstring>
#include <memory>

#include "experiments/data/raster_decode.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

// Deflate codes at most 258 bytes in 2 bits (zlib.net, "zlib technical details": 1032 to 1).
constexpr int64_t largest_ratio = 1032;

struct Reader {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::span<const std::byte> left;
  char message[128] = "";

  Reader() = default;
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
};

[[noreturn]] void on_error(png_structp png, png_const_charp text) {
  auto* reader = static_cast<Reader*>(png_get_error_ptr(png));
  std::strncpy(reader->message, text, sizeof reader->message - 1);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep to, size_t count) {
  auto* reader = static_cast<Reader*>(png_get_io_ptr(png));
  if (reader->left.size() < count) png_error(png, "the file ends early");
  std::memcpy(to, reader->left.data(), count);
  reader->left = reader->left.subspan(count);
}

// false: libpng jumped out. `body` must own nothing.
template <class Body>
[[gnu::noinline]] bool guarded(Reader& reader, Body body) {
  if (setjmp(png_jmpbuf(reader.png))) return false;
  body();
  return true;
}

void set_transforms(Reader& r, bool labels) {
  if (labels) {
    png_set_packing(r.png);
  } else {
    png_set_expand(r.png);
  }
  png_set_strip_alpha(r.png);
  if (std::endian::native == std::endian::little && png_get_bit_depth(r.png, r.info) == 16)
    png_set_swap(r.png);
  png_set_interlace_handling(r.png);
  png_read_update_info(r.png, r.info);
}

}  // namespace

Pixels decode_png(std::span<const std::byte> bytes, const std::string& name, bool labels) {
  Reader r;
  r.left = bytes;
  r.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &r, on_error, on_warning);
  if (r.png != nullptr) r.info = png_create_info_struct(r.png);
  if (r.info == nullptr) fail(name, "libpng cannot start");
  png_set_read_fn(r.png, &r, on_read);
  const auto broken = [&] { fail(name, "damaged PNG: " + std::string(r.message)); };

  if (!guarded(r, [&] { png_read_info(r.png, r.info); })) broken();
  Pixels pixels{.width = png_get_image_width(r.png, r.info),
                .height = png_get_image_height(r.png, r.info)};
  const int64_t bits = int64_t{png_get_bit_depth(r.png, r.info)} * png_get_channels(r.png, r.info);
  check_pixels(name, pixels.width, pixels.height,
               static_cast<int64_t>(bytes.size()) * largest_ratio * 8 / bits);
  // A palette's index carries its transparency with it: there is no alpha channel to strip.
  if (!guarded(r, [&] { set_transforms(r, labels); })) broken();
  pixels.channels = png_get_channels(r.png, r.info);
  pixels.deep = png_get_bit_depth(r.png, r.info) == 16;
  const auto row_bytes = static_cast<size_t>(png_get_rowbytes(r.png, r.info));
  const auto row_samples = static_cast<size_t>(pixels.width * pixels.channels);
  if ((pixels.channels != 1 && pixels.channels != 3) ||
      row_bytes != row_samples * (pixels.deep ? 2 : 1))
    fail(name, "a PNG with " + std::to_string(pixels.channels) + " channels is not read");

  std::vector<png_byte> buffer(row_bytes * static_cast<size_t>(pixels.height));
  std::vector<png_bytep> rows;
  for (int64_t y = 0; y < pixels.height; ++y)
    rows.push_back(buffer.data() + row_bytes * static_cast<size_t>(y));
  if (!guarded(r, [&] {
        png_read_image(r.png, rows.data());
        png_read_end(r.png, nullptr);
      }))
    broken();
  pixels.samples.resize(row_samples * static_cast<size_t>(pixels.height));
  if (pixels.deep)
    std::memcpy(pixels.samples.data(), buffer.data(), buffer.size());
  else
    std::copy(buffer.begin(), buffer.end(), pixels.samples.begin());
  return pixels;
}

}  // namespace voxlab
