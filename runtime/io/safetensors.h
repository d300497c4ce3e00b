// safetensors files: a JSON header and one block of row-major tensors. Read strictly, written
// atomically.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/io/bytes.h"
#include "runtime/io/named_tensors.h"

namespace voxlab {

class FileBytes;

struct SafetensorsEntry {
  std::string name;
  ElementType type = ElementType::f32;
  Shape shape;
  uint64_t begin = 0, end = 0;  // bytes within the data block
};

// True when the content has the form of a safetensors file: a header length that fits, then '{'.
bool is_safetensors(ByteSpan bytes);

// An open file: the header is read and checked, tensors are copied out when asked for.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  explicit SafetensorsFile(std::shared_ptr<const FileBytes> file);

  const std::vector<SafetensorsEntry>& entries() const { return entries_; }  // in header order
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  Tensor read(const std::string& name) const;
  NamedTensors read_all() const;

 private:
  Tensor read(const SafetensorsEntry& entry) const;
  std::shared_ptr<const FileBytes> file_;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, std::string> metadata_;
  ByteSpan data_;
};

// Header in the order of `tensors`; data in order of falling element size, so that every tensor is
// aligned.
void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors);

}  // namespace voxlab
