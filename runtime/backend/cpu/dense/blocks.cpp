#include "runtime/backend/cpu/dense/blocks.h"

#include <limits>

namespace voxlab::cpu {
namespace {

using Triple = std::array<int64_t, 3>;

}  // namespace

BlockPlace place_block(const Triple& size, const Triple& block, int64_t index) {
  BlockPlace place;
  for (int i = 2; i >= 0; --i) {
    const int64_t count = ceil_div(size[i], block[i]), at = index % count;
    const bool even = i == 0 || (i == 1 && block[0] >= size[0]);
    place.begin[i] = even ? share(size[i], at, count) : at * block[i];
    place.size[i] = (even ? share(size[i], at + 1, count) : std::min(size[i], (at + 1) * block[i])) - place.begin[i];
    index /= count;
  }
  place.sample = index;
  return place;
}

int64_t block_count(int64_t batch, const Triple& size, const Triple& block) {
  return batch * ceil_div(size[0], block[0]) * ceil_div(size[1], block[1]) * ceil_div(size[2], block[2]);
}

Triple cheapest_block(const Triple& size, const Triple& otherwise, const std::function<double(const Triple&)>& cost, int64_t w_step) {
  const auto halvings = [](int64_t n, int64_t step = 1) {
    std::vector<int64_t> sizes = {n};
    while (sizes.back() > step) sizes.push_back(ceil_div(sizes.back(), 2 * step) * step);
    return sizes;
  };
  Triple best = otherwise;
  double best_cost = std::numeric_limits<double>::infinity();
  for (const int64_t w : halvings(size[2], w_step)) {
    for (const int64_t h : halvings(size[1])) {
      for (const int64_t d : halvings(size[0])) {
        const double this_cost = cost({d, h, w});
        if (this_cost >= best_cost) continue;
        best_cost = this_cost;
        best = {d, h, w};
      }
    }
  }
  return best;
}

double idle_factor(int64_t blocks) {
  const int64_t threads = thread_count();
  return static_cast<double>(ceil_div(blocks, threads) * threads) / static_cast<double>(blocks);
}

}  // namespace voxlab::cpu
