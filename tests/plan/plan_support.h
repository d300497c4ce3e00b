// What the tests of plans share.
#pragma once

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <map>
#include <memory>
#include <utility>

#include "nets/zoo.h"
#include "runtime/analyze/ledger.h"
#include "runtime/autograd/tape.h"
#include "runtime/backend/cpu/isa.h"
#include "runtime/core/arithmetic.h"
#include "runtime/core/error.h"
#include "runtime/ops/all.h"
#include "runtime/plan/fuse.h"
#include "runtime/plan/memory.h"
#include "runtime/plan/plan.h"
#include "tests/support/draw.h"

namespace voxlab {

using test::draw;

inline Tensor random(Shape shape, uint64_t seed, double low = -1, double high = 1) {
  return draw({.shape = std::move(shape), .low = low, .high = high}, DType::f32, Device::cpu, seed);
}

// Largest difference, relative to the largest value.
inline double difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.shape(), b.shape());
  const auto x = a.to_vector(), y = b.to_vector();
  double most = 0, scale = 1e-30;
  for (size_t i = 0; i < x.size(); ++i) {
    most = std::fmax(most, std::fabs(x[i] - y[i]));
    scale = std::fmax(scale, std::fabs(x[i]));
  }
  return most / scale;
}

// Norm of the difference over that of `a`.
inline double norm_difference(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector(), y = b.to_vector();
  double square = 0, size = 1e-30;
  for (size_t i = 0; i < x.size(); ++i) {
    square += (x[i] - y[i]) * (x[i] - y[i]);
    size += x[i] * x[i];
  }
  return std::sqrt(square / size);
}

inline std::map<std::string, int> ops_of(const Trace& graph) {
  std::map<std::string, int> count;
  for (const TraceStep& node : graph.steps) ++count[std::string(node.op->name)];
  return count;
}

inline Trace fused(const Body& body, const Metas& inputs) {
  Trace graph = trace(inputs, body);
  plan::rewrite(graph);
  return graph;
}

inline Trace fused(const Forward& forward, const Shape& shape) {
  return fused([&](const Tensors& in) { return forward(in[0]); }, {{shape}});
}

// A plan of the function, on two inputs.
inline void expect_same(const Forward& forward, const Shape& shape, double limit = 2e-6) {
  PlannedForward planned(forward);
  for (uint64_t seed : {2u, 3u}) {
    const Tensor x = random(shape, seed);
    const Tensors expected = forward(x), got = planned(x);
    ASSERT_EQ(expected.size(), got.size());
    for (size_t i = 0; i < got.size(); ++i) EXPECT_LT(difference(expected[i], got[i]), limit) << "output " << i;
  }
}

}  // namespace voxlab
