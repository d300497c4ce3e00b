#include "runtime/core/parallel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <vector>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

class Parallel : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    before_ = thread_count();
    set_thread_count(GetParam());
  }
  void TearDown() override { set_thread_count(before_); }

 private:
  int before_ = 1;
};

TEST_P(Parallel, EveryIndexOnceInFixedPieces) {
  for (const int64_t n : {1, 2, 7, 100, 1001})
    for (const int64_t grain : {0, 1, 8, 5000}) {
      std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
      std::mutex mutex;
      std::set<std::pair<int64_t, int64_t>> pieces;
      parallel_pieces(n, grain, [&](int piece, int64_t begin, int64_t end) {
        EXPECT_GE(piece, 0);
        EXPECT_LT(piece, thread_count());
        for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        const std::lock_guard lock(mutex);
        EXPECT_TRUE(pieces.insert({begin, end}).second);
      });
      for (const auto& count : visits) ASSERT_EQ(count, 1) << n << " by " << grain;
      const int64_t expected = std::clamp<int64_t>(n / std::max<int64_t>(1, grain), 1, GetParam());
      EXPECT_EQ(static_cast<int64_t>(pieces.size()), expected);
      for (const auto& [begin, end] : pieces) {
        if (expected > 1) {
          EXPECT_GE(end - begin, grain);
        }
      }
    }
}

TEST_P(Parallel, NothingToDo) {
  parallel_for(0, 1, [](int64_t, int64_t) { FAIL(); });
  parallel_for(-5, 1, [](int64_t, int64_t) { FAIL(); });
}

TEST_P(Parallel, ExceptionsReachTheCallerAndThePoolLives) {
  for (int round = 0; round < 3; ++round) {
    EXPECT_THROW(
        parallel_for(100, 1, [](int64_t begin, int64_t) { fail("piece", std::to_string(begin)); }),
        Error);
    std::atomic<int64_t> sum = 0;
    parallel_for(100, 1, [&](int64_t begin, int64_t end) { sum += end - begin; });
    EXPECT_EQ(sum, 100);
  }
}

TEST_P(Parallel, InnerLoopsRunOnTheirThread) {
  std::atomic<int64_t> sum = 0, inner_calls = 0;
  parallel_for(8, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      parallel_for(50, 1, [&](int64_t b, int64_t e) {
        ++inner_calls;
        sum += e - b;
      });
  });
  EXPECT_EQ(sum, 400);
  EXPECT_EQ(inner_calls, 8) << "one piece each: already inside a parallel region";
}

INSTANTIATE_TEST_SUITE_P(Threads, Parallel, testing::Values(2, 3, 8));

TEST(ParallelSettings, OneThreadRunsHere) {
  const int before = thread_count();
  set_thread_count(1);
  int calls = 0;  // not atomic: the same thread
  parallel_for(1000, 1, [&](int64_t begin, int64_t end) { calls += begin == 0 && end == 1000; });
  EXPECT_EQ(calls, 1);
  EXPECT_THROW(set_thread_count(0), Error);
  EXPECT_EQ(thread_count(), 1);
  set_thread_count(before);
}

}  // namespace
}  // namespace voxlab
