// Bounded streaming input on zlib's inflate. The content decides whether it is gzip, not the name.
#include "experiments/data/byte_source.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "runtime/core/error.h"
#include "runtime/io/file.h"

namespace voxlab {
namespace {

// Deflate codes at most 258 bytes in 2 bits (zlib.net, "zlib technical details": 1032 to 1).
constexpr int64_t largest_ratio = 1032;

}  // namespace

struct ByteSource::Impl {
  std::string name;
  std::shared_ptr<const FileBytes> file;  // keeps `raw` alive
  std::span<const std::byte> raw;         // not used yet
  bool gzip = false;
  bool stream_done = false;
  z_stream z{};

  ~Impl() {
    if (gzip) inflateEnd(&z);
  }

  void start() {
    if (raw.empty()) fail(name, "the file is empty");
    if (raw.size() < 2 || raw[0] != std::byte{0x1f} || raw[1] != std::byte{0x8b}) return;
    if (inflateInit2(&z, 15 + 16) != Z_OK) fail(name, "zlib cannot start");
    gzip = true;
  }

  // Up to `count` bytes of content; fewer only at the end.
  int64_t read_some(std::byte* to, int64_t count) {
    if (gzip) return inflate_some(to, count);
    const size_t n = std::min(static_cast<size_t>(count), raw.size());
    if (n > 0) std::memcpy(to, raw.data(), n);
    raw = raw.subspan(n);
    return static_cast<int64_t>(n);
  }

  int64_t inflate_some(std::byte* to, int64_t count) {
    int64_t done = 0;
    while (done < count && !stream_done) {
      if (raw.empty()) fail(name, "the gzip stream ends early: the file is truncated");
      const auto room = static_cast<uInt>(std::min<int64_t>(count - done, 1 << 30));
      const auto given = static_cast<uInt>(std::min<size_t>(raw.size(), 1 << 30));
      z.next_in = reinterpret_cast<z_const Bytef*>(const_cast<std::byte*>(raw.data()));
      z.avail_in = given;
      z.next_out = reinterpret_cast<Bytef*>(to + done);
      z.avail_out = room;
      const int status = inflate(&z, Z_NO_FLUSH);
      raw = raw.subspan(given - z.avail_in);
      done += room - z.avail_out;
      if (status == Z_STREAM_END) {
        next_member();
      } else if (status != Z_OK && status != Z_BUF_ERROR) {
        fail(name, fmt::format("the gzip stream is damaged: {}", z.msg ? z.msg : zError(status)));
      }
    }
    return done;
  }

  // gzip files may be several streams end to end (pigz, bgzip); anything else behind one is not
  // ours.
  void next_member() {
    stream_done = true;
    if (raw.size() < 2 || raw[0] != std::byte{0x1f} || raw[1] != std::byte{0x8b}) return;
    if (inflateReset(&z) != Z_OK) fail(name, "zlib cannot restart");
    stream_done = false;
  }
};

ByteSource::ByteSource(const std::filesystem::path& file) : impl_(std::make_unique<Impl>()) {
  impl_->file = FileBytes::open(file);
  impl_->name = impl_->file->name();
  impl_->raw = impl_->file->bytes();
  impl_->start();
}

ByteSource::ByteSource(std::span<const std::byte> bytes, std::string name)
    : impl_(std::make_unique<Impl>()) {
  impl_->name = std::move(name);
  impl_->raw = bytes;
  impl_->start();
}

ByteSource::~ByteSource() = default;
ByteSource::ByteSource(ByteSource&&) noexcept = default;

const std::string& ByteSource::name() const { return impl_->name; }

void ByteSource::read(void* to, int64_t count, const char* what) {
  const int64_t got = impl_->read_some(static_cast<std::byte*>(to), count);
  if (got != count)
    fail(impl_->name, fmt::format("the file ends early: {} needs {} bytes more, {} are there", what,
                                  count, got));
}

void ByteSource::skip(int64_t count, const char* what) {
  std::array<std::byte, 4096> sink;
  while (count > 0) {
    const int64_t n = std::min<int64_t>(count, int64_t(sink.size()));
    read(sink.data(), n, what);
    count -= n;
  }
}

int64_t ByteSource::most_left() const {
  const auto raw = static_cast<int64_t>(impl_->raw.size());
  // zlib may hold a match and a few bits that it took in before: less than 8 bytes' worth.
  return impl_->gzip ? (raw + 8) * largest_ratio : raw;
}

void ByteSource::finish(int64_t limit) {
  if (!impl_->gzip) return;
  std::array<std::byte, 1 << 15> sink;
  int64_t extra = 0;
  while (const int64_t got = impl_->read_some(sink.data(), int64_t(sink.size()))) {
    extra += got;
    if (extra > limit)
      fail(impl_->name,
           fmt::format("more than {} bytes follow the data the header announces", limit));
  }
}

}  // namespace voxlab
