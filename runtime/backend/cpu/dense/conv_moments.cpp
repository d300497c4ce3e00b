#include "runtime/backend/cpu/dense/conv_moments.h"

#include <algorithm>

#include "runtime/backend/cpu/moments.h"

namespace voxlab::cpu {

void MomentParts::write(float* to) {
  std::sort(parts_.begin(), parts_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  const size_t columns = parts_.empty() ? 0 : parts_.front().second.count.size();
  for (size_t c = 0; c < columns; ++c) {
    Moments all;
    for (const auto& [first, part] : parts_) {
      const double n = part.count[c];
      if (n == 0) continue;
      const double shift = part.sum[c] / n;
      all.join({n, double{part.pivot[c]} + shift, part.square[c] - shift * part.sum[c]});
    }
    to[2 * c] = static_cast<float>(all.mean);
    to[2 * c + 1] = static_cast<float>(all.count > 0 ? std::max(0.0, all.m2 / all.count) : 0.0);
  }
}

}  // namespace voxlab::cpu
