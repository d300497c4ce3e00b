// Builders of small checkpoint files for tests: zip archives, pickles, temporary folders.
#pragma once

#include <gtest/gtest.h>
#include <zlib.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/io/file.h"
#include "runtime/io/torch_file.h"
#include "tests/support/temporary_folder.h"

namespace voxlab::test {

inline std::filesystem::path golden_folder() {
  return std::filesystem::path(VOXLAB_TEST_DATA) / "goldens" / "checkpoints";
}

template <class T>
std::string little_endian(T value) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &value, sizeof(T));
  return out;
}

// One stored entry and what a fault in it is made of.
struct ZipPart {
  std::string name, data;
  uint32_t crc_xor = 0;
  uint16_t flags = 0, method = 0;
};

// A zip archive as APPNOTE.TXT 4.3 describes it: local headers, directory, end record.
inline std::string make_zip(const std::vector<ZipPart>& parts) {
  std::string out, directory;
  for (const ZipPart& part : parts) {
    const auto crc = static_cast<uint32_t>(
        crc32_z(0, reinterpret_cast<const Bytef*>(part.data.data()), part.data.size()));
    const auto size = static_cast<uint32_t>(part.data.size());
    const std::string common =
        little_endian<uint16_t>(20) + little_endian(part.flags) + little_endian(part.method) +
        little_endian<uint32_t>(0) + little_endian<uint32_t>(crc ^ part.crc_xor) +
        little_endian(size) + little_endian(size) +
        little_endian(static_cast<uint16_t>(part.name.size())) + little_endian<uint16_t>(0);
    directory += "PK\x01\x02" + little_endian<uint16_t>(20) + common + std::string(10, '\0') +
                 little_endian(static_cast<uint32_t>(out.size())) + part.name;
    out += "PK\x03\x04" + common + part.name + part.data;
  }
  const auto count = static_cast<uint16_t>(parts.size());
  const auto offset = static_cast<uint32_t>(out.size());
  return out + directory + "PK\x05\x06" + std::string(4, '\0') + little_endian(count) +
         little_endian(count) + little_endian(static_cast<uint32_t>(directory.size())) +
         little_endian(offset) + std::string(2, '\0');
}

// A torch archive with this pickle and six floats 0 to 5 as storage "0".
inline std::string make_torch_zip(const std::string& pickle) {
  std::string floats;
  for (int i = 0; i < 6; ++i) floats += little_endian(static_cast<float>(i));
  return make_zip({{"a/data.pkl", pickle}, {"a/data/0", floats}, {"a/version", "3\n"}});
}

// BINUNICODE of the text.
inline std::string pickled(std::string_view text) {
  return "X" + little_endian(static_cast<uint32_t>(text.size())) + std::string(text);
}

// Opcodes that leave storage "0" of `count` floats, or the floats' bytes untyped, on the stack.
inline std::string pickled_storage(uint8_t count, std::string_view class_ = "torch\nFloatStorage") {
  return "(" + pickled("storage") + "c" + std::string(class_) + "\n" + pickled("0") +
         pickled("cpu") + "K" + static_cast<char>(count) + "tQ";
}

inline std::shared_ptr<const FileBytes> in_memory(const std::string& bytes,
                                                  std::string name = "memory") {
  return FileBytes::copy(std::as_bytes(std::span(bytes.data(), bytes.size())), std::move(name));
}

inline Value read_pickled(const std::string& opcodes) {
  return read_torch(in_memory(make_torch_zip("\x80\x02" + opcodes + ".")));
}

// The message of the Error that `f` throws; "" and a failure when it throws none.
template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

}  // namespace voxlab::test
