// Efficient paired attention in plans: every form that UNETR++ has becomes one op with the values of op by op, and whatever
// differs from it in one step, axis or reader does not.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "nets/zoo.h"
#include "runtime/core/arithmetic.h"
#include "runtime/ops/all.h"
#include "runtime/ops/call.h"
#include "runtime/plan/fuse.h"
#include "runtime/plan/plan.h"
#include "tests/support/draw.h"

namespace voxlab {
namespace {

using test::draw;

Tensor random(Shape shape, uint64_t seed, double low = -1, double high = 1) {
  return draw({.shape = std::move(shape), .low = low, .high = high}, DType::f32, Device::cpu, seed);
}

struct Found {
  int64_t paired = 0, with_residual = 0;
};

Found found_in(const Forward& forward, const Tensor& x) {
  Trace graph = trace(Metas{x.meta()}, [&](const Tensors& in) { return forward(in[0]); });
  plan::own_outputs(graph);
  plan::fuse_paired_attention(graph);
  Found found;
  for (const TraceStep& step : graph.steps) {
    if (step.op != &record_of<PairedAttention>()) continue;
    ++found.paired;
    found.with_residual += step.inputs[PairedAttention::residual] != absent;
  }
  return found;
}

// Largest difference between a plan and op by op, relative to the largest value, on an input that the trace did not see.
double plan_error(const Forward& forward, const Shape& shape) {
  const Tensor x = random(shape, 2);
  PlannedForward planned(forward);
  const Tensors expected = forward(x), got = planned({x});
  double most = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto a = expected[i].to_vector(), b = got[i].to_vector();
    double scale = 1e-30, difference = 0;
    for (size_t k = 0; k < a.size(); ++k) {
      scale = std::fmax(scale, std::fabs(a[k]));
      difference = std::fmax(difference, std::fabs(a[k] - b[k]));
    }
    most = std::fmax(most, difference / scale);
  }
  return most;
}

// ---- networks ----

NetConfig small_network(const std::string& variant) {
  NetConfig config = net_preset("unetr_pp", variant);
  config.unetr_pp.patch = {1, 4, 4};
  config.unetr_pp.image = {8, 32, 32};
  config.unetr_pp.feature_size = 8;
  config.unetr_pp.dims = {16, 32, 64, 128};
  config.unetr_pp.encoder_projection = {24, 64, 17, 8};
  config.unetr_pp.encoder_depths = {1, 2, 1, 1};
  config.unetr_pp.decoder_depths = {1, 1, 1};
  return config;
}

// gamma starts at 1e-6: large enough here that the attention counts.
Network network_of(const NetConfig& config) {
  Network net = make_network(config, {.seed = 5});
  for (const nn::ParameterPtr& parameter : net.parameters.all())
    if (parameter->name.ends_with("gamma")) parameter->value.copy_from(random(parameter->value.shape(), 9, 0.5, 1));
  return net;
}

struct NetworkCase {
  std::string variant;
  unetr_pp::SpatialOrder order;
  unetr_pp::Branches branches;
  int64_t paired;
};

class PairedInNetworks : public testing::TestWithParam<NetworkCase> {};

TEST_P(PairedInNetworks, EveryBlockIsOneOpAndGivesTheSame) {
  NetConfig config = small_network(GetParam().variant);
  config.unetr_pp.spatial_order = GetParam().order;
  config.unetr_pp.branches = GetParam().branches;
  const Network net = network_of(config);
  const auto forward = [&](const Tensor& x) { return net.forward(x, {}); };
  for (const int64_t batch : {1, 2}) {
    const Shape shape{batch, 8, 32, 32, config.unetr_pp.in_channels};
    const Found found = found_in(forward, random(shape, 1));
    EXPECT_EQ(found.paired, GetParam().paired) << "batch of " << batch;
    EXPECT_EQ(found.with_residual, GetParam().paired) << "batch of " << batch;
    EXPECT_LT(plan_error(forward, shape), 1e-5) << "batch of " << batch;
  }
}

using unetr_pp::Branches;
using unetr_pp::SpatialOrder;
INSTANTIATE_TEST_SUITE_P(Forms, PairedInNetworks,
                         testing::Values(NetworkCase{"synapse", SpatialOrder::released, Branches::both, 8},
                                         NetworkCase{"synapse", SpatialOrder::paper, Branches::both, 8},
                                         NetworkCase{"acdc", SpatialOrder::released, Branches::both, 8},
                                         NetworkCase{"tumor", SpatialOrder::released, Branches::both, 8},
                                         NetworkCase{"tumor", SpatialOrder::paper, Branches::both, 8},
                                         NetworkCase{"synapse", SpatialOrder::released, Branches::spatial, 0},
                                         NetworkCase{"tumor", SpatialOrder::paper, Branches::channel, 0}));

// ---- one attention, and what is almost one ----

// Each differs from paired attention in one thing.
enum class Twist : uint8_t {
  none, bias_of_parts, parts_swapped, value_of_the_other, key_of_spatial_normalised, another_eps, another_axis_of_softmax,
  norm_along_channels, order_of_channels, temperature_of_all_heads, temperature_of_channels, query_read, norm_read, sum_of_channels,
  projections_swapped, end
};

Tensors almost_paired(Twist twist, const Tensor& x) {
  constexpr int64_t heads = 2, width = 8, depth = 4, projected = 3;
  const int64_t batch = x.size(0), tokens = x.size(1);
  const auto is = [&](Twist t) { return twist == t; };
  const Tensor weight = random({width, 4 * width}, 10), projection = random({tokens, projected}, 11);
  const Tensor bias = is(Twist::bias_of_parts) ? random({4 * width}, 12) : Tensor();
  const Tensor temperature = random(is(Twist::temperature_of_all_heads)  ? Shape{1, 1, 1}
                                    : is(Twist::temperature_of_channels) ? Shape{heads, depth, 1}
                                                                         : Shape{heads, 1, 1},
                                    13, 0.5, 2);
  const auto in_heads = [&](const Tensor& t) { return reshape(t, {batch, heads, depth, -1}); };
  Tensors part = split(contiguous(transpose(linear(x, weight, bias))), 1, std::vector<int64_t>(4, width));
  if (is(Twist::parts_swapped)) std::swap(part[1], part[2]);
  const Tensors normalised = call<L2Normalise>({{is(Twist::norm_along_channels) ? 2 : -1}}, {in_heads(part[1])});
  const Tensor query = normalised[0], key = l2_normalise(in_heads(part[2]), -1, is(Twist::another_eps) ? 1e-6 : 1e-12);
  const Tensor scores = mul(matmul(query, transpose(key)), temperature);
  const Tensor mixing = softmax(scores, is(Twist::another_axis_of_softmax) ? 2 : 3);
  const Tensor mixed = matmul(mixing, in_heads(part[is(Twist::value_of_the_other) ? 3 : 0]));
  const std::vector<int> order{0, 3, 1, 2}, other{0, 3, 2, 1};
  const Tensor channel = reshape(permute(mixed, is(Twist::order_of_channels) ? other : order), {batch, tokens, width});
  const Tensor projected_key = is(Twist::key_of_spatial_normalised) ? reshape(key, {batch, width, tokens}) : part[2];
  Tensors both = split(linear(concat({projected_key, part[3]}, 1), projection), 1, {width, width});
  if (is(Twist::projections_swapped)) std::swap(both[0], both[1]);
  const Tensor keys = mul(in_heads(both[0]), random({heads, 1, 1}, 14));
  const Tensor attended = matmul(softmax(matmul(transpose(query), keys)), transpose(in_heads(both[1])));
  const Tensor spatial = reshape(permute(attended, order), {batch, tokens, width});
  Tensors out{is(Twist::sum_of_channels) ? add(channel, channel) : add(channel, spatial)};
  if (is(Twist::query_read)) out.push_back(scale(query, 2));
  if (is(Twist::norm_read)) out.push_back(scale(normalised[1], 2));
  return out;
}

TEST(PairedAttention, NothingButItIsTakenForIt) {
  const Shape shape{2, 21, 8};
  for (uint8_t twist = 0; twist < static_cast<uint8_t>(Twist::end); ++twist) {
    SCOPED_TRACE(static_cast<int>(twist));
    const auto forward = [&](const Tensor& x) { return almost_paired(static_cast<Twist>(twist), x); };
    EXPECT_EQ(found_in(forward, random(shape, 1)).paired, static_cast<Twist>(twist) == Twist::none ? 1 : 0);
    EXPECT_LT(plan_error(forward, shape), 2e-6);
  }
}

// Only a product with one factor a column and the sum of that alone, where nobody else reads either.
TEST(PairedAttention, TakesInGammaAndResidual) {
  const Shape shape{2, 21, 8};
  const Tensor gamma = random({8}, 20), of_tokens = random({21, 1}, 21), one = random({1, 1, 8}, 22);
  const auto found = [&](const auto& after, int64_t expected) {
    const auto forward = [&](const Tensor& x) { return after(x, almost_paired(Twist::none, x)[0]); };
    const Found ops = found_in(forward, random(shape, 1));
    EXPECT_EQ(ops.paired, 1);
    EXPECT_EQ(ops.with_residual, expected);
    EXPECT_LT(plan_error(forward, shape), 2e-6);
  };
  found([&](const Tensor& x, const Tensor& y) { return Tensors{add(x, mul(gamma, y))}; }, 1);
  found([&](const Tensor& x, const Tensor& y) { return Tensors{add(mul(y, gamma), scale(x, 3))}; }, 1);
  found([&](const Tensor& x, const Tensor& y) { return Tensors{add(x, mul(gamma, y)), scale(y, 2)}; }, 0);
  found([&](const Tensor& x, const Tensor& y) { const Tensor z = mul(gamma, y); return Tensors{add(x, z), scale(z, 2)}; }, 0);
  found([&](const Tensor& x, const Tensor& y) { return Tensors{add(x, mul(of_tokens, y))}; }, 0);
  found([&](const Tensor& x, const Tensor& y) { return Tensors{sub(x, mul(gamma, y))}; }, 0);
  found([&](const Tensor&, const Tensor& y) { return Tensors{add(one, mul(gamma, y))}; }, 0);
  found([&](const Tensor& x, const Tensor& y) { return Tensors{add(x, y)}; }, 0);
}

}  // namespace
}  // namespace voxlab
