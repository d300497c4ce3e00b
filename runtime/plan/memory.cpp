#include "runtime/plan/memory.h"

#include <algorithm>
#include <numeric>

namespace voxlab::plan {
namespace {

constexpr int64_t alignment = 64;

int64_t aligned(int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

}  // namespace

Layout lay_out(const std::vector<Lifetime>& lifetimes) {
  std::vector<size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });
  Layout layout{.offsets = std::vector<int64_t>(lifetimes.size())};
  std::vector<size_t> placed;  // by offset
  for (size_t i : order) {
    const Lifetime& life = lifetimes[i];
    int64_t offset = 0;
    for (size_t other : placed) {
      const Lifetime& o = lifetimes[other];
      if (o.last < life.first || o.first > life.last) continue;
      if (layout.offsets[other] - offset >= aligned(life.bytes)) break;
      offset = std::max(offset, layout.offsets[other] + aligned(o.bytes));
    }
    layout.offsets[i] = offset;
    layout.bytes = std::max(layout.bytes, offset + aligned(life.bytes));
    placed.insert(std::upper_bound(placed.begin(), placed.end(), offset,
                                   [&](int64_t at, size_t p) { return at < layout.offsets[p]; }),
                  i);
  }
  return layout;
}

}  // namespace voxlab::plan
