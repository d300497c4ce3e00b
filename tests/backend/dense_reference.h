// Naive f64 convolution and matrix product, and comparison helpers, for the dense kernel tests.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "runtime/backend/cpu/dense/dense.h"

namespace voxlab::cpu {

using Values = std::vector<float>;

inline int64_t volume(const std::array<int64_t, 3>& s) { return s[0] * s[1] * s[2]; }
inline int64_t size_x(const ConvGeometry& g) { return g.batch * volume(g.in) * g.in_channels; }
inline int64_t size_y(const ConvGeometry& g) { return g.batch * volume(g.out()) * g.out_channels; }
inline int64_t size_w(const ConvGeometry& g) {
  return volume(g.kernel) * (g.in_channels / g.groups) * g.out_channels;
}

inline Values random_values(int64_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  Values v(static_cast<size_t>(n));
  for (float& x : v) x = uniform(rng);
  return v;
}

// What tiles hold of weights: bf16, or the sum of two.
inline Values held(const Values& w, Precision precision) {
  Values all;
  for (const float value : w) {
    const auto high = static_cast<float>(bfloat16(value));
    all.push_back(precision == Precision::bf16 ? high : high + static_cast<float>(bfloat16(value - high)));
  }
  return all;
}

// Calls visit(x index, w index, y index) for every product of the convolution.
template <class Visit>
void for_each_product(const ConvGeometry& g, const Visit& visit) {
  const auto out = g.out();
  const int64_t group_in = g.in_channels / g.groups;
  const int64_t group_out = g.out_channels / g.groups;
  for (int64_t n = 0; n < g.batch; ++n) {
    for (int64_t o = 0; o < volume(out); ++o) {
      const std::array<int64_t, 3> at = {o / (out[1] * out[2]), o / out[2] % out[1], o % out[2]};
      for (int64_t k = 0; k < volume(g.kernel); ++k) {
        const std::array<int64_t, 3> tap = {k / (g.kernel[1] * g.kernel[2]),
                                            k / g.kernel[2] % g.kernel[1], k % g.kernel[2]};
        int64_t position = 0;
        bool inside = true;
        for (size_t i = 0; i < 3; ++i) {
          const int64_t p = at[i] * g.stride[i] - g.pad[i] + tap[i] * g.dilation[i];
          inside = inside && p >= 0 && p < g.in[i];
          position = position * g.in[i] + p;
        }
        if (!inside) continue;
        for (int64_t oc = 0; oc < g.out_channels; ++oc) {
          for (int64_t ic = 0; ic < group_in; ++ic) {
            visit((n * volume(g.in) + position) * g.in_channels + oc / group_out * group_in + ic,
                  (k * group_in + ic) * g.out_channels + oc,
                  (n * volume(out) + o) * g.out_channels + oc);
          }
        }
      }
    }
  }
}

// Sums in f64 beside the sum of magnitudes, which bounds the rounding error of any order of
// summation.
struct Sums {
  std::vector<double> value;
  std::vector<double> magnitude;
  explicit Sums(int64_t n) : value(static_cast<size_t>(n)), magnitude(static_cast<size_t>(n)) {}
  void add(int64_t at, double product) {
    value[static_cast<size_t>(at)] += product;
    magnitude[static_cast<size_t>(at)] += std::fabs(product);
  }
};

inline Sums reference_forward(const ConvGeometry& g, const Values& x, const Values& w) {
  Sums y(size_y(g));
  for_each_product(g, [&](int64_t i, int64_t k, int64_t o) {
    y.add(o, double{x[static_cast<size_t>(i)]} * double{w[static_cast<size_t>(k)]});
  });
  return y;
}

inline Sums reference_dgrad(const ConvGeometry& g, const Values& dy, const Values& w) {
  Sums dx(size_x(g));
  for_each_product(g, [&](int64_t i, int64_t k, int64_t o) {
    dx.add(i, double{dy[static_cast<size_t>(o)]} * double{w[static_cast<size_t>(k)]});
  });
  return dx;
}

inline Sums reference_wgrad(const ConvGeometry& g, const Values& x, const Values& dy) {
  Sums dw(size_w(g));
  for_each_product(g, [&](int64_t i, int64_t k, int64_t o) {
    dw.add(k, double{x[static_cast<size_t>(i)]} * double{dy[static_cast<size_t>(o)]});
  });
  return dw;
}

// Fails at the first element further from the f64 sum than `relative` times its magnitude.
inline void expect_close(const Values& got, const Sums& want, double relative,
                         const std::string& what) {
  ASSERT_EQ(got.size(), want.value.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    const double limit = relative * want.magnitude[i] + 1e-30;
    if (!(std::fabs(double{got[i]} - want.value[i]) <= limit)) {
      ADD_FAILURE() << what << ": element " << i << " of " << got.size() << " is " << got[i]
                    << ", expected " << want.value[i] << " +- " << limit;
      return;
    }
  }
}

inline std::string describe(const ConvGeometry& g) {
  const auto text = [](const std::array<int64_t, 3>& a) {
    return std::to_string(a[0]) + "x" + std::to_string(a[1]) + "x" + std::to_string(a[2]);
  };
  return "n" + std::to_string(g.batch) + " in " + text(g.in) + " channels " +
         std::to_string(g.in_channels) + "->" + std::to_string(g.out_channels) + " kernel " +
         text(g.kernel) + " stride " + text(g.stride) + " pad " + text(g.pad) + " dilation " +
         text(g.dilation) + " groups " + std::to_string(g.groups);
}

}  // namespace voxlab::cpu
