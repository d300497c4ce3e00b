// ByteReader: bounded little-endian reading from a span. Every parser of this folder reads through
// it.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace voxlab {

static_assert(std::endian::native == std::endian::little,
              "tensor files are little-endian and are copied without conversion");

using ByteSpan = std::span<const std::byte>;

inline std::string_view as_text(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Strict UTF-8: no overlong forms, surrogates or code points past U+10FFFF (RFC 3629).
bool is_utf8(std::string_view text);

// Text of a file for use in an error message: printable, and not longer than a line.
std::string printable(std::string_view text);

class ByteReader {
 public:
  ByteReader(ByteSpan bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }
  void seek(uint64_t position);

  uint8_t u8() { return read<uint8_t>(); }
  uint16_t u16() { return read<uint16_t>(); }
  uint32_t u32() { return read<uint32_t>(); }
  uint64_t u64() { return read<uint64_t>(); }
  int32_t i32() { return read<int32_t>(); }
  int64_t i64() { return read<int64_t>(); }

  // The next `count` bytes. Error when the input is shorter, whatever a header claimed.
  ByteSpan take(uint64_t count);
  // Text up to the next newline, which is consumed and not returned.
  std::string_view line();

  // Error "where: at byte N: message".
  [[noreturn]] void fail_here(const std::string& message) const;

 private:
  template <class T>
  T read() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  ByteSpan bytes_;
  uint64_t position_ = 0;
  std::string where_;
};

}  // namespace voxlab
