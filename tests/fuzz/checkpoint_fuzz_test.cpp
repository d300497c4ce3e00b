// Deterministic mutations of checkpoint files through the fuzz target: part of every test run,
// sanitizers included.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "runtime/core/rng.h"
#include "tests/fuzz/checkpoint_target.h"
#include "tests/io/archive.h"

namespace voxlab {
namespace {

using test::golden_folder;
using test::read_checkpoint;

using Bytes = std::vector<std::byte>;

Bytes load(const std::filesystem::path& path) {
  const auto file = FileBytes::open(path);
  return {file->bytes().begin(), file->bytes().end()};
}

// Small files of each format that read without error.
std::vector<std::filesystem::path> good_files() {
  const std::filesystem::path hostile = golden_folder() / "hostile";
  return {hostile / "control_zip.pth", hostile / "control_writer.pth",
          hostile / "control_legacy.pth", hostile / "control.safetensors",
          golden_folder() / "parameters_and_plain.pth"};
}

TEST(CheckpointFuzz, EveryTruncationIsRefused) {
  for (const auto& path : good_files()) {
    const Bytes bytes = load(path);
    ASSERT_TRUE(read_checkpoint(bytes)) << path;
    for (size_t size = 0; size < bytes.size(); ++size)
      EXPECT_FALSE(read_checkpoint(ByteSpan(bytes).first(size))) << path << " at " << size;
  }
}

TEST(CheckpointFuzz, EveryBitFlipIsReadOrRefused) {
  for (const auto& path : good_files()) {
    Bytes bytes = load(path);
    for (size_t i = 0; i < bytes.size(); ++i)
      for (int bit = 0; bit < 8; ++bit) {
        bytes[i] ^= std::byte{1} << bit;
        read_checkpoint(bytes);
        bytes[i] ^= std::byte{1} << bit;
      }
    EXPECT_TRUE(read_checkpoint(bytes)) << path;
  }
}

// Bytes of `name`'s data within the archive.
std::pair<size_t, size_t> find_data(const Bytes& bytes, std::string_view pattern) {
  const size_t at = as_text(bytes).find(pattern);
  return {at, at + pattern.size()};
}

TEST(CheckpointFuzz, NoDamagedTensorIsRead) {
  Bytes bytes = load(golden_folder() / "hostile/control_zip.pth");
  std::string floats;
  for (int i = 0; i < 6; ++i) floats += test::little_endian(static_cast<float>(i));
  const auto [begin, end] = find_data(bytes, floats);
  ASSERT_LT(end, bytes.size());
  for (size_t i = begin; i < end; ++i)
    for (int bit = 0; bit < 8; ++bit) {
      bytes[i] ^= std::byte{1} << bit;
      EXPECT_FALSE(read_checkpoint(bytes)) << i << " bit " << bit;
      bytes[i] ^= std::byte{1} << bit;
    }
}

// One random change: a byte, a special 64-bit number, a removed, repeated or copied range.
void mutate(Bytes& bytes, const Philox& random, uint64_t& draw) {
  const auto below = [&](size_t n) { return static_cast<size_t>(random.bits(draw++)) % n; };
  constexpr std::array<uint64_t, 6> special{0, 1, 0x7fffffffffffffff, 0x8000000000000000,
                                            0xffffffffffffffff, 0x100000000};
  const size_t at = below(bytes.size()), length = std::min(bytes.size() - at, 1 + below(32));
  const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  const auto end = begin + static_cast<std::ptrdiff_t>(length);
  switch (below(5)) {
    case 0: bytes[at] = static_cast<std::byte>(below(256)); break;
    case 1: {
      const uint64_t number = special[below(special.size())];
      std::memcpy(&bytes[at], &number, std::min<size_t>(length, sizeof(number)));
      break;
    }
    case 2: if (length < bytes.size()) bytes.erase(begin, end); break;
    case 3: {
      const Bytes part(begin, end);
      bytes.insert(begin, part.begin(), part.end());
      break;
    }
    default: {
      const size_t to = below(bytes.size() - length + 1);
      std::memmove(&bytes[to], &bytes[at], length);
      break;
    }
  }
}

TEST(CheckpointFuzz, RandomMutationsAreReadOrRefused) {
  std::vector<std::filesystem::path> files = good_files();
  for (const auto& entry : std::filesystem::directory_iterator(golden_folder() / "hostile"))
    if (entry.file_size() > 0 && entry.file_size() < 4500) files.push_back(entry.path());
  std::sort(files.begin(), files.end());  // a folder's order is not
  constexpr int rounds = 150;
  for (size_t f = 0; f < files.size(); ++f) {
    const Bytes original = load(files[f]);
    const Philox random(2024, f, 0);
    uint64_t draw = 0;
    for (int round = 0; round < rounds; ++round) {
      Bytes bytes = original;
      for (int changes = 1 + round % 4; changes > 0; --changes) mutate(bytes, random, draw);
      read_checkpoint(bytes);
    }
  }
}

// The zip reader's CRC stops most mutations of a pickle: feed the unpickler itself, rewrapped each
// time.
TEST(CheckpointFuzz, RandomPicklesAreReadOrRefused) {
  const Bytes archive = load(golden_folder() / "parameters_and_plain.pth");
  const size_t begin = as_text(archive).find("\x80\x02}q");
  ASSERT_NE(begin, std::string_view::npos);
  const Bytes original(archive.begin() + static_cast<std::ptrdiff_t>(begin),
                       archive.begin() + static_cast<std::ptrdiff_t>(begin + 762));
  const Philox random(2025, 0, 0);
  uint64_t draw = 0;
  size_t read = 0;
  for (int round = 0; round < 20'000; ++round) {
    Bytes bytes = original;
    for (int changes = 1 + round % 3; changes > 0; --changes) mutate(bytes, random, draw);
    const std::string wrapped = test::make_torch_zip(std::string(as_text(bytes)));
    try {
      const Value root = read_torch(test::in_memory(wrapped));
      ++read;
      if (root.is(ValueKind::dict))
        for (int64_t i = 0; i < root.size(); ++i)
          if (root.entry(i).second.is(ValueKind::tensor)) root.entry(i).second.tensor();
    } catch (const Error&) {
    }
  }
  SUCCEED() << read << " were read";
}

}  // namespace
}  // namespace voxlab
