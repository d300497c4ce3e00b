// Whole files: mapped for reading, replaced atomically when written.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "runtime/io/bytes.h"

namespace voxlab {

// The bytes of a file and the name that errors give it. A mapping, so that reading one tensor of a
// large file costs that tensor only. A file replaced by rename stays readable.
class FileBytes {
 public:
  static std::shared_ptr<const FileBytes> open(const std::filesystem::path& path);
  // A private copy of bytes that come from elsewhere.
  static std::shared_ptr<const FileBytes> copy(ByteSpan bytes, std::string name);
  ~FileBytes();
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;

  ByteSpan bytes() const { return bytes_; }
  const std::string& name() const { return name_; }

 private:
  FileBytes() = default;
  ByteSpan bytes_;
  std::string name_;
  bool mapped_ = false;
  std::vector<std::byte> owned_;
};

// A file that appears under its name complete or not at all: written beside it, synced, then
// renamed. Without commit() the destructor removes what was written.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(ByteSpan bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  void commit();

 private:
  [[noreturn]] void fail_errno(const char* what) const;
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
};

}  // namespace voxlab
