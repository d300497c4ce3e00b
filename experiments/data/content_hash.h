// SHA-256 (FIPS 180-4), for names of cached results that depend on content alone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace voxlab {

class ContentHash {
 public:
  void add(std::span<const std::byte> bytes);
  // Text with its length before it, so that ("ab", "c") and ("a", "bc") differ.
  void add_text(std::string_view text);
  // A file's bytes, with their number before them.
  void add_file(const std::filesystem::path& file);
  std::string hex() const;  // 64 digits, of what was added so far

 private:
  void block(const std::byte* bytes);
  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> pending_{};
  uint64_t length_ = 0;
};

}  // namespace voxlab
