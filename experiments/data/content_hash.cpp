#include "experiments/data/content_hash.h"

#include <array>

#include "runtime/io/file.h"

namespace voxlab {
namespace {

std::array<std::byte, 8> big_endian(uint64_t value) {
  std::array<std::byte, 8> bytes;
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>(value >> (56 - 8 * i));
  return bytes;
}

}  // namespace

void ContentHash::add_text(std::string_view text) {
  add(big_endian(text.size()));
  add(std::as_bytes(std::span(text.data(), text.size())));
}

void ContentHash::add_file(const std::filesystem::path& file) {
  const auto content = FileBytes::open(file);
  add(big_endian(content->bytes().size()));
  add(content->bytes());
}

}  // namespace voxlab
