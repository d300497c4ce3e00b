// ProtobufMessage: writes the protobuf wire format (protobuf.dev/programming-guides/encoding). It
// knows field numbers and bytes only; the meaning of a message stands where it is built.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/io/bytes.h"

namespace voxlab {

class AtomicFile;

class ProtobufMessage {
 public:
  void integer(uint32_t field, int64_t value);  // int32, int64, enum
  void floating(uint32_t field, float value);
  void text(uint32_t field, std::string_view value);  // string, or bytes that are copied
  void borrowed(uint32_t field, ByteSpan value);      // bytes that outlive the message: weights
  void message(uint32_t field, const ProtobufMessage& part);

  uint64_t size() const { return size_; }
  void write_to(AtomicFile& file) const;

 private:
  struct Piece {
    std::string own;    // written first,
    ByteSpan borrowed;  // then this
  };
  void append(std::string_view bytes);
  void number(uint64_t value);
  void tag(uint32_t field, uint32_t wire_type);
  std::vector<Piece> pieces_;
  uint64_t size_ = 0;
};

}  // namespace voxlab
