#include "runtime/io/bytes.h"

#include <fmt/format.h>

#include "runtime/core/error.h"

namespace voxlab {

bool is_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const auto lead = static_cast<uint8_t>(text[i++]);
    if (lead < 0x80) continue;
    int tail = 0;
    uint32_t code = 0, least = 0;
    if ((lead & 0xE0) == 0xC0) {
      tail = 1, code = lead & 0x1Fu, least = 0x80;
    } else if ((lead & 0xF0) == 0xE0) {
      tail = 2, code = lead & 0x0Fu, least = 0x800;
    } else if ((lead & 0xF8) == 0xF0) {
      tail = 3, code = lead & 0x07u, least = 0x10000;
    } else {
      return false;
    }
    for (; tail > 0; --tail) {
      if (i == text.size()) return false;
      const auto next = static_cast<uint8_t>(text[i++]);
      if ((next & 0xC0) != 0x80) return false;
      code = (code << 6) | (next & 0x3Fu);
    }
    if (code < least || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return false;
  }
  return true;
}

std::string printable(std::string_view text) {
  constexpr size_t longest = 80;
  std::string out = "'";
  for (char c : text.substr(0, longest)) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x20 || byte >= 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  if (text.size() > longest) out += "...";
  return out + "'";
}

void ByteReader::seek(uint64_t position) {
  if (position > bytes_.size())
    fail(where_,
         fmt::format("offset {} lies beyond the {} bytes there are", position, bytes_.size()));
  position_ = position;
}

ByteSpan ByteReader::take(uint64_t count) {
  if (count > remaining())
    fail_here(fmt::format("{} more bytes are needed, {} are left", count, remaining()));
  const ByteSpan out = bytes_.subspan(position_, count);
  position_ += count;
  return out;
}

std::string_view ByteReader::line() {
  const std::string_view rest = as_text(bytes_.subspan(position_));
  const size_t end = rest.find('\n');
  if (end == std::string_view::npos) fail_here("a line of text does not end");
  position_ += end + 1;
  return rest.substr(0, end);
}

void ByteReader::fail_here(const std::string& message) const {
  fail(where_, fmt::format("at byte {}: {}", position_, message));
}

}  // namespace voxlab
