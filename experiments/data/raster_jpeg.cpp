// JPEG by libjpeg (libjpeg-turbo).
// clang-format off
#include <cstddef>
#include <cstdio>
#include <jpeglib.h>  // needs the two above
// clang-format on

#include <algorithm>
#include <csetjmp>

#include "experiments/data/raster_decode.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

// An 8 x 8 block takes at least one bit: the code of its mean.
constexpr int64_t pixels_a_byte = 8 * 64;
// Each scan of a progressive file goes over the whole picture: hostile files have thousands.
constexpr int most_scans = 500;

struct Reader {
  jpeg_decompress_struct jpeg{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf out;
  char message[JMSG_LENGTH_MAX] = "";

  Reader() = default;
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() { jpeg_destroy_decompress(&jpeg); }
};

Reader& reader_of(j_common_ptr jpeg) { return *static_cast<Reader*>(jpeg->client_data); }

// libjpeg's own handler ends the process.
[[noreturn]] void on_error(j_common_ptr jpeg) {
  Reader& r = reader_of(jpeg);
  r.errors.format_message(jpeg, r.message);
  std::longjmp(r.out, 1);
}

// Level -1: the data are damaged, and libjpeg would go on with grey blocks. We do not.
void on_message(j_common_ptr jpeg, int level) {
  if (level < 0) on_error(jpeg);
}

void on_progress(j_common_ptr jpeg) {
  Reader& r = reader_of(jpeg);
  if (r.jpeg.input_scan_number <= most_scans) return;
  std::snprintf(r.message, sizeof r.message, "more than %d scans", most_scans);
  std::longjmp(r.out, 1);
}

// false: libjpeg jumped out. `body` must own nothing.
template <class Body>
[[gnu::noinline]] bool guarded(Reader& reader, Body body) {
  if (setjmp(reader.out)) return false;
  body();
  return true;
}

}  // namespace

Pixels decode_jpeg(std::span<const std::byte> bytes, const std::string& name, bool labels) {
  Reader r;
  r.jpeg.err = jpeg_std_error(&r.errors);
  r.errors.error_exit = on_error;
  r.errors.emit_message = on_message;
  r.progress.progress_monitor = on_progress;
  r.jpeg.client_data = &r;
  const auto broken = [&] { fail(name, "damaged JPEG: " + std::string(r.message)); };

  if (!guarded(r, [&] {
        jpeg_create_decompress(&r.jpeg);  // keeps err and client_data
        r.jpeg.progress = &r.progress;
        jpeg_mem_src(&r.jpeg, reinterpret_cast<const unsigned char*>(bytes.data()),
                     static_cast<unsigned long>(bytes.size()));
        jpeg_read_header(&r.jpeg, TRUE);
      }))
    broken();
  Pixels pixels{.width = r.jpeg.image_width, .height = r.jpeg.image_height};
  check_pixels(name, pixels.width, pixels.height,
               static_cast<int64_t>(bytes.size()) * pixels_a_byte);
  const J_COLOR_SPACE stored = r.jpeg.jpeg_color_space;
  if (stored != JCS_GRAYSCALE && stored != JCS_YCbCr && stored != JCS_RGB)
    fail(name, "a JPEG of " + std::to_string(r.jpeg.num_components) +
                   " components that is neither grey nor RGB is not read");
  const bool grey = labels || stored == JCS_GRAYSCALE;
  pixels.channels = grey ? 1 : 3;
  r.jpeg.out_color_space = grey ? JCS_GRAYSCALE : JCS_RGB;

  const auto row = static_cast<size_t>(pixels.width * pixels.channels);
  std::vector<unsigned char> buffer(row * static_cast<size_t>(pixels.height));
  if (!guarded(r, [&] {
        jpeg_start_decompress(&r.jpeg);
        while (r.jpeg.output_scanline < r.jpeg.output_height) {
          JSAMPROW to = buffer.data() + row * r.jpeg.output_scanline;
          jpeg_read_scanlines(&r.jpeg, &to, 1);
        }
        jpeg_finish_decompress(&r.jpeg);
      }))
    broken();
  pixels.samples.assign(buffer.begin(), buffer.end());
  return pixels;
}

}  // namespace voxlab
