// A reader of the protobuf wire format, made from its specification and sharing nothing with the
// writer.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace voxlab::test {

struct ProtobufField {
  uint64_t number = 0;
  uint64_t integer = 0;    // of a varint
  std::string_view bytes;  // of a length-delimited field: text, data or a message
  float floating = 0;      // of a 32-bit field
};

// The fields of a message, in order; throws on anything that is not one.
class ProtobufReader {
 public:
  explicit ProtobufReader(std::string_view text) {
    for (size_t at = 0; at < text.size();) {
      const uint64_t tag = varint(text, at);
      ProtobufField field{.number = tag >> 3};
      switch (tag & 7) {
        case 0:
          field.integer = varint(text, at);
          break;
        case 2: {
          const uint64_t size = varint(text, at);
          if (size > text.size() - at)
            throw std::runtime_error("a field is longer than its message");
          field.bytes = text.substr(at, size);
          at += size;
          break;
        }
        case 5:
          if (text.size() - at < 4) throw std::runtime_error("a 32-bit field is cut off");
          std::memcpy(&field.floating, text.data() + at, 4);
          at += 4;
          break;
        default:
          throw std::runtime_error("wire type " + std::to_string(tag & 7));
      }
      fields.push_back(field);
    }
  }

  std::vector<ProtobufField> all(uint64_t number) const {
    std::vector<ProtobufField> found;
    for (const ProtobufField& field : fields)
      if (field.number == number) found.push_back(field);
    return found;
  }
  // The only field of this number.
  ProtobufField one(uint64_t number) const {
    const auto found = all(number);
    if (found.size() != 1)
      throw std::runtime_error(std::to_string(found.size()) + " fields of number " +
                               std::to_string(number));
    return found[0];
  }

  std::vector<ProtobufField> fields;

 private:
  static uint64_t varint(std::string_view text, size_t& at) {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      if (at == text.size() || shift > 63)
        throw std::runtime_error("a number is cut off or too long");
      const auto byte = static_cast<uint8_t>(text[at++]);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  }
};

}  // namespace voxlab::test
