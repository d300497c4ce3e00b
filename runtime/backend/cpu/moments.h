// Count, mean and spread of values, joined from parts.
#pragma once

namespace voxlab::cpu {

struct Moments {
  double count = 0, mean = 0, m2 = 0;  // m2: sum of squared deviations
  // Chan, Golub & LeVeque 1983, eq. 2.1.
  void join(const Moments& other) {
    if (other.count == 0) return;
    const double total = count + other.count, delta = other.mean - mean;
    mean += delta * other.count / total;
    m2 += other.m2 + delta * delta * count * other.count / total;
    count = total;
  }
};

}  // namespace voxlab::cpu
