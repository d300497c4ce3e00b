// ByteSource: reads a file (or bytes in memory) that may be gzipped, front to back, without ever
// holding more than a small window of it. Written for files from strangers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace voxlab {

class ByteSource {
 public:
  explicit ByteSource(const std::filesystem::path& file);
  ByteSource(std::span<const std::byte> bytes, std::string name);  // keeps a reference to `bytes`
  ~ByteSource();
  ByteSource(ByteSource&&) noexcept;

  const std::string& name() const;

  // Reads exactly `count` bytes. Error "... ends early, in <what>" when there are fewer, and when
  // the gzip stream is damaged.
  void read(void* to, int64_t count, const char* what);
  void skip(int64_t count, const char* what);

  // No more bytes than this can follow: what is left of the file, times deflate's largest ratio if
  // it is gzipped. A header that promises more is lying, and nothing needs to be allocated to know
  // it.
  int64_t most_left() const;

  // Reads on to the end of a gzip stream, so that its checksum is verified. Error when more than
  // `limit` bytes follow. Bytes after the data of a file that is not gzipped are not looked at.
  void finish(int64_t limit);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace voxlab
