#include "runtime/io/protobuf.h"

#include "runtime/io/file.h"

namespace voxlab {
namespace {

constexpr uint32_t varint = 0, length_delimited = 2, fixed32 = 5;  // wire types

}  // namespace

void ProtobufMessage::append(std::string_view bytes) {
  if (pieces_.empty() || !pieces_.back().borrowed.empty()) pieces_.emplace_back();
  pieces_.back().own += bytes;
  size_ += bytes.size();
}

// Seven bits a byte, lowest first; the top bit says that more follow.
void ProtobufMessage::number(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7f) | 0x80);
  bytes += static_cast<char>(value);
  append(bytes);
}

void ProtobufMessage::tag(uint32_t field, uint32_t wire_type) { number(field << 3 | wire_type); }

void ProtobufMessage::integer(uint32_t field, int64_t value) {
  tag(field, varint);
  number(static_cast<uint64_t>(value));
}

void ProtobufMessage::floating(uint32_t field, float value) {
  tag(field, fixed32);
  append({reinterpret_cast<const char*>(&value), sizeof value});
}

void ProtobufMessage::text(uint32_t field, std::string_view value) {
  tag(field, length_delimited);
  number(value.size());
  append(value);
}

void ProtobufMessage::borrowed(uint32_t field, ByteSpan value) {
  tag(field, length_delimited);
  number(value.size());
  pieces_.back().borrowed = value;
  size_ += value.size();
}

void ProtobufMessage::message(uint32_t field, const ProtobufMessage& part) {
  tag(field, length_delimited);
  number(part.size_);
  for (const Piece& piece : part.pieces_) {
    append(piece.own);
    pieces_.back().borrowed = piece.borrowed;
    size_ += piece.borrowed.size();
  }
}

void ProtobufMessage::write_to(AtomicFile& file) const {
  for (const Piece& piece : pieces_) {
    file.write(piece.own);
    file.write(piece.borrowed);
  }
}

}  // namespace voxlab
