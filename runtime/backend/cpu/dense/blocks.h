// Outputs cut into blocks: which size, where each lies, which thread computes it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {

// Where a block lies in an output of `size`. Threads take neighbouring blocks: along D, or H where all D is one block, these are
// even shares, none larger than `block`, so that threads have the same to do. Along the others all but the last are whole.
struct BlockPlace {
  int64_t sample;
  std::array<int64_t, 3> begin, size;
};
BlockPlace place_block(const std::array<int64_t, 3>& size, const std::array<int64_t, 3>& block, int64_t index);
int64_t block_count(int64_t batch, const std::array<int64_t, 3>& size, const std::array<int64_t, 3>& block);

// The block of least cost among an output's sizes, halved again and again, along W to multiples of `w_step`; `otherwise` where
// all costs are infinite.
std::array<int64_t, 3> cheapest_block(const std::array<int64_t, 3>& size, const std::array<int64_t, 3>& otherwise,
                                      const std::function<double(const std::array<int64_t, 3>&)>& cost, int64_t w_step = 1);

// How much longer equal blocks take because a last round leaves threads idle.
double idle_factor(int64_t blocks);

// Few blocks (deep layers) are shared out by groups of column panels as well.
inline int64_t panel_groups(int64_t blocks, int64_t panels, int64_t tasks_a_thread = 2) {
  return std::clamp<int64_t>(ceil_div(tasks_a_thread * thread_count(), blocks), 1, std::max<int64_t>(panels, 1));
}

// Calls run(block, panels, count) on the runners that threads make for themselves, for every block and group of
// panels. A runner that has run(block, panels, count, ahead) learns the thread's next block too, -1 where there is none.
// `work`: in f32 multiply-adds.
template <class Panel, class MakeRunner>
void run_blocks(int64_t blocks, const std::vector<Panel>& panels, int64_t work, const MakeRunner& make_runner,
                int64_t tasks_a_thread = 2) {
  const auto count = static_cast<int64_t>(panels.size());
  const int64_t groups = panel_groups(blocks, count, tasks_a_thread);
  parallel_for(blocks * groups, task_grain(blocks * groups, work), [&](int64_t begin, int64_t end) {
    auto runner = make_runner();
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = count * (i % groups) / groups, last = count * (i % groups + 1) / groups;
      if constexpr (requires { runner.run(i, panels.data(), count, i); }) {
        runner.run(i / groups, panels.data() + first, last - first, i + 1 < end ? (i + 1) / groups : -1);
      } else {
        runner.run(i / groups, panels.data() + first, last - first);
      }
    }
  });
}

}  // namespace voxlab::cpu
