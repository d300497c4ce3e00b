// What is asked for ahead: every byte once, in the shares that the calls still to come leave.
#include "runtime/backend/cpu/dense/lines_ahead.h"

#include <gtest/gtest.h>

#include <vector>

namespace voxlab::cpu {
namespace {

// How often each byte of `room` is asked for in so many calls, and the largest share in lines.
struct Asked {
  std::vector<int> times;
  int64_t largest = 0;
};
Asked asked(LinesAhead& lines, const std::vector<std::byte>& room, int64_t calls) {
  Asked found{.times = std::vector<int>(room.size())};
  for (int64_t left = calls; left > 0; --left) {
    AmxSumArgs args = {};
    lines.share(args, left);
    const std::ptrdiff_t from = args.next_bytes == 0 ? 0 : reinterpret_cast<const std::byte*>(args.next) - room.data();
    for (int64_t i = 0; i < args.next_bytes; ++i) ++found.times.at(static_cast<size_t>(from + i));
    found.largest = std::max<int64_t>(found.largest, args.next_bytes / 64);
  }
  return found;
}

TEST(LinesAhead, NeighboursAreOnePieceAndAllOfItIsAskedForOnce) {
  const std::vector<std::byte> room(640);
  LinesAhead lines;
  lines.add(room.data(), 200);
  lines.add(room.data() + 200, 440);
  const Asked found = asked(lines, room, 10);  // ten lines, ten calls
  EXPECT_EQ(found.times, std::vector<int>(640, 1));
  EXPECT_EQ(found.largest, 1);
}

TEST(LinesAhead, FewCallsAskForMoreEach) {
  const std::vector<std::byte> room(640);
  LinesAhead lines;
  lines.add(room.data(), 640);
  const Asked found = asked(lines, room, 3);
  EXPECT_EQ(found.times, std::vector<int>(640, 1));
  EXPECT_EQ(found.largest, 4);  // 4, 3, 3
}

TEST(LinesAhead, PiecesApartTakeACallEach) {
  const std::vector<std::byte> room(640);
  LinesAhead lines;
  for (int64_t at = 0; at < 640; at += 128) lines.add(room.data() + at, 64);
  const Asked found = asked(lines, room, 5);
  for (size_t i = 0; i < 640; ++i) EXPECT_EQ(found.times[i], i % 128 < 64 ? 1 : 0) << i;
}

TEST(LinesAhead, NothingIsLeftBehind) {
  const std::vector<std::byte> room(128);
  LinesAhead lines;
  lines.add(room.data(), 128);
  lines.clear();
  EXPECT_EQ(asked(lines, room, 4).times, std::vector<int>(128, 0));
}

}  // namespace
}  // namespace voxlab::cpu
