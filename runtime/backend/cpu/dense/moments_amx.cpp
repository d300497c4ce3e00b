#include "runtime/backend/cpu/dense/moments_amx.h"

#include <algorithm>

namespace voxlab::cpu {

void MomentParts::write(float* to) {
  std::sort(parts_.begin(), parts_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  const size_t columns = parts_.empty() ? 0 : parts_.front().second.count.size();
  for (size_t c = 0; c < columns; ++c) {
    // Chan, Golub & LeVeque 1983, eq. 2.1.
    double count = 0, mean = 0, m2 = 0;
    for (const auto& [first, part] : parts_) {
      const double n = part.count[c];
      if (n == 0) continue;
      const double shift = part.sum[c] / n, delta = double{part.pivot[c]} + shift - mean;
      mean += delta * n / (count + n);
      m2 += part.square[c] - shift * part.sum[c] + delta * delta * count * n / (count + n);
      count += n;
    }
    to[2 * c] = static_cast<float>(mean);
    to[2 * c + 1] = static_cast<float>(count > 0 ? std::max(0.0, m2 / count) : 0.0);
  }
}

}  // namespace voxlab::cpu
