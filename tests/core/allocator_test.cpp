#include "runtime/core/allocator.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <optional>

#include "runtime/core/error.h"
#include "runtime/core/tensor.h"

namespace voxlab {
namespace {

constexpr int64_t mebi = int64_t{1} << 20;

uintptr_t address(const Storage& s) { return reinterpret_cast<uintptr_t>(s.data()); }

TEST(Allocator, SmallBlocksFillCacheLinesLargeOnesHugePages) {
  for (const int64_t bytes : {int64_t{1}, int64_t{65}, int64_t{4097}, mebi}) {
    const Storage s(bytes, Device::cpu);
    EXPECT_EQ(address(s) % 64, 0U) << bytes;
  }
  for (const int64_t bytes : {2 * mebi, 2 * mebi + 1, 9 * mebi + 12345}) {
    const Storage s(bytes, Device::cpu);
    EXPECT_EQ(address(s) % static_cast<uintptr_t>(2 * mebi), 0U) << bytes;
  }
}

TEST(Allocator, CountsLiveBytesAndPeakByDevice) {
  for (const Device device : {Device::cpu, Device::ref, Device::meta}) {
    const int64_t before = memory_report(device).current;
    reset_peak(device);
    std::optional<Storage> a(std::in_place, 1000, device);
    {
      const Storage b(5000, device);
      EXPECT_EQ(memory_report(device).current, before + 6000);
    }
    a.reset();
    const Storage c(300, device);
    EXPECT_EQ(memory_report(device).current, before + 300);
    EXPECT_EQ(memory_report(device).peak, before + 6000);
    reset_peak(device);
    EXPECT_EQ(memory_report(device).peak, before + 300);
  }
}

TEST(Allocator, ReusesBlocksOfOneSizeClass) {
  release_cached_blocks();
  const int64_t reserved = memory_report(Device::cpu).reserved;
  const std::byte* first = nullptr;
  {
    const Storage s(3 * mebi, Device::cpu);
    first = s.data();
  }
  EXPECT_EQ(memory_report(Device::cpu).reserved, reserved + 4 * mebi);  // two whole huge pages
  const Storage again(3 * mebi + 10, Device::ref);  // host devices share the pool
  EXPECT_EQ(again.data(), first);
  EXPECT_EQ(memory_report(Device::cpu).reserved, reserved + 4 * mebi);
}

TEST(Allocator, GivesCachedBlocksBack) {
  release_cached_blocks();
  const int64_t reserved = memory_report(Device::cpu).reserved;
  { const Storage s(2 * mebi, Device::cpu); }
  EXPECT_EQ(memory_report(Device::cpu).reserved, reserved + 2 * mebi);
  release_cached_blocks();
  EXPECT_EQ(memory_report(Device::cpu).reserved, reserved);
}

// An eighth at most is lost to rounding up, below whole huge pages.
TEST(Allocator, SizeClassesWasteLittle) {
  for (const int64_t bytes : {4097, 5000, 70001, 300000, 1200000}) {
    release_cached_blocks();
    const int64_t reserved = memory_report(Device::cpu).reserved;
    const Storage s(bytes, Device::cpu);
    const int64_t block = memory_report(Device::cpu).reserved - reserved;
    EXPECT_GE(block, bytes);
    EXPECT_LE(block, bytes + bytes / 8 + 64);
  }
}

// What the system gives a block that was written from end to end: with a huge page at its end these were 6 MiB.
TEST(Allocator, TheLastBytesTakeNoHugePage) {
  release_cached_blocks();
  constexpr int64_t page = 4096, bytes = 5 * mebi, block = 6 * mebi;
  const Storage s(bytes, Device::cpu);
  std::fill_n(s.data(), bytes, std::byte{1});
  std::array<unsigned char, block / page> pages{};
  ASSERT_EQ(mincore(s.data(), static_cast<size_t>(block), pages.data()), 0);
  const auto resident = std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return (p & 1U) != 0; });
  EXPECT_EQ(resident, bytes / page);
}

TEST(Allocator, MetaHasNoMemory) {
  const int64_t reserved = memory_report(Device::cpu).reserved;
  const Storage s(int64_t{1} << 50, Device::meta);
  EXPECT_EQ(s.data(), nullptr);
  EXPECT_EQ(s.bytes(), int64_t{1} << 50);
  EXPECT_EQ(memory_report(Device::cpu).reserved, reserved);
}

TEST(Allocator, BorrowedMemoryIsKeptAliveAndNotCounted) {
  const int64_t before = memory_report(Device::cpu).current;
  auto owner = std::make_shared<std::array<std::byte, 64>>();
  {
    const Storage s(owner->data(), 64, Device::cpu, owner);
    EXPECT_EQ(owner.use_count(), 2);
    EXPECT_EQ(memory_report(Device::cpu).current, before);
  }
  EXPECT_EQ(owner.use_count(), 1);
}

TEST(Allocator, RefusesWhatTheSystemDoesNotHave) {
  const int64_t before = memory_report(Device::cpu).current;
#if !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)  // those end the process instead
  EXPECT_THROW(Storage(int64_t{1} << 55, Device::cpu), Error);
#endif
  EXPECT_THROW(Storage(-1, Device::cpu), Error);
  EXPECT_EQ(memory_report(Device::cpu).current, before);
  // 2^61 elements fit an int64, their 2^64 bytes do not.
  EXPECT_THROW(Tensor::empty({int64_t{1} << 61}, DType::f64), Error);
}

}  // namespace
}  // namespace voxlab
