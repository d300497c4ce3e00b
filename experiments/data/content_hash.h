// Names of cached results that depend on content alone: SHA-256 over delimited pieces.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "experiments/config/sha256.h"

namespace voxlab {

class ContentHash {
 public:
  void add(std::span<const std::byte> bytes) { hash_.update(bytes); }
  // Text with its length before it, so that ("ab", "c") and ("a", "bc") differ.
  void add_text(std::string_view text);
  // A file's bytes, with their number before them.
  void add_file(const std::filesystem::path& file);
  std::string hex() const { return hash_.hex(); }  // 64 digits, of what was added so far

 private:
  Sha256 hash_;
};

}  // namespace voxlab
