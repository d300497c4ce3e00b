// DAE-Former's options: what each changes and what it must not, and what is refused.
#include <gtest/gtest.h>

#include <cmath>

#include "experiments/run/count.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

using dae_former::Attention;
using dae_former::Config;

NetConfig small() {
  NetConfig config = net_preset("dae_former", "synapse");
  Config& c = config.dae_former;
  c.image = {32, 32};
  c.classes = 3;
  c.dims = {8, 16, 24};
  c.layers = {1, 1, 1};
  c.decoder_layers = 1;
  c.channel_heads = 4;
  return config;
}

NetConfig with(void (*change)(Config&)) {
  NetConfig config = small();
  change(config.dae_former);
  return config;
}

// Parameters start by (seed, name) alone, so networks that share names share weights.
Network made(const NetConfig& config) {
  return make_network(config, {.device = Device::ref, .dtype = DType::f64, .seed = 7});
}

std::vector<double> output(const Network& net) {
  const Shape shape{1, 32, 32, net.in_channels};
  std::vector<double> x(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<double>(i));
  const Tensors out =
      net.forward(Tensor::from_span(shape, std::span<const double>(x), Device::ref), {});
  EXPECT_EQ(out[0].shape(), (Shape{1, 32, 32, 3}));
  return out[0].to_vector();
}

void zero(const Network& net, std::string_view part) {
  for (const auto& p : net.parameters.all())
    if (p->name.find(part) != std::string::npos)
      p->value = Tensor::zeros(p->value.shape(), DType::f64, Device::ref);
}

TEST(DaeFormer, AChannelLayerThatAddsNothingLeavesEfficientAttention) {
  const std::vector<double> alone =
      output(made(with([](Config& c) { c.attention = Attention::efficient; })));
  for (void (*order)(Config&) : {+[](Config& c) { c.attention = Attention::efficient_channel; },
                                 +[](Config& c) { c.attention = Attention::channel_efficient; }}) {
    const Network both = made(with(order));
    EXPECT_NE(output(both), alone);
    zero(both, ".channel.channel_attention.proj.");
    zero(both, ".channel.mlp.fc2.");
    EXPECT_EQ(output(both), alone);
  }
}

// A block of width C counted by hand: norms 2 C; efficient attention 4 (C^2 + C); channel attention
// 4 C^2 + C and a factor a head; a feed-forward 8 C^2 + 53 C with its norm and nine taps and a bias
// a channel.
TEST(DaeFormer, FusedBlocksHoldWhatTheyShould) {
  const int64_t c = 8, heads = 4, norm = 2 * c, efficient = 4 * (c * c + c),
                channel = 4 * c * c + c + heads, feed_forward = 8 * c * c + 53 * c;
  const auto held = [](void (*change)(Config&)) {
    NetConfig config = with(change);
    config.dae_former.unused_parameters = false;
    int64_t count = 0;
    for (const ParameterTotal& total : parameters_by_scope(config, 3))
      if (total.scope == "encoder.stage1.block0") count += total.parameters;
    return count;
  };
  const int64_t both = 4 * norm + efficient + channel + 2 * feed_forward;
  EXPECT_EQ(held([](Config&) {}), both);
  EXPECT_EQ(held([](Config& o) { o.attention = Attention::channel_efficient; }), both);
  EXPECT_EQ(held([](Config& o) { o.attention = Attention::add; }), both - norm - feed_forward);
  EXPECT_EQ(held([](Config& o) { o.attention = Attention::add_layers; }),
            both + norm + feed_forward);
  EXPECT_EQ(held([](Config& o) { o.attention = Attention::concat; }),
            both + norm + feed_forward + 2 * norm + 2 * c * c + c);
  EXPECT_EQ(held([](Config& o) { o.attention = Attention::efficient; }),
            2 * norm + efficient + feed_forward);
  EXPECT_EQ(held([](Config& o) { o.attention = Attention::channel; }),
            2 * norm + channel + feed_forward);
}

TEST(DaeFormer, EvaluatingTheFirstLayerTwiceChangesCountsOnly) {
  const NetConfig twice = with([](Config& c) { c.repeat_fc1 = true; });
  EXPECT_EQ(output(made(twice)), output(made(small())));
  const auto macs = [](const NetConfig& config) {
    return totals(count_network(config, CountMode::inference).rows, count_rule("mac"), 0)
        .at(0)
        .count;
  };
  // 4 C^2 a token in each of two feed-forwards of a dual block (64, 16, 4 tokens; two decoder
  // levels), and 8 C^2 in a cross attention's, of twice the width.
  const double blocks = 2 * 4 * (64 * 64 * 2 + 16 * 256 * 2 + 4 * 576),
               cross = 8 * (64 * 64 + 16 * 256);
  EXPECT_EQ(macs(twice) - macs(small()), blocks + cross);
}

TEST(DaeFormer, EveryVariantRunsAndUsesAllItsParameters) {
  for (void (*change)(Config&) : {+[](Config& c) { c.attention = Attention::add; },
                                  +[](Config& c) { c.attention = Attention::concat; },
                                  +[](Config& c) { c.attention = Attention::add_layers; },
                                  +[](Config& c) { c.attention = Attention::channel; },
                                  +[](Config& c) { c.skip = dae_former::Skip::concat; },
                                  +[](Config& c) { c.skips = 1; }, +[](Config& c) { c.skips = 0; },
                                  +[](Config& c) { c.token_mlp = dae_former::TokenMlp::mlp; },
                                  +[](Config& c) { c.cross_keys = dae_former::CrossKeys::decoder; },
                                  +[](Config& c) {
                                    c.dims = {8, 16}, c.layers = {1, 2}, c.skips = 1;
                                  },
                                  +[](Config& c) {
                                    c.dims = {8, 8, 16, 24}, c.layers = {1, 1, 1, 1}, c.skips = 3;
                                  },
                                  +[](Config& c) {
                                    c.key_dims = {4, 8, 12}, c.value_dims = {8, 8, 32};
                                  }}) {
    NetConfig config = with(change);
    config.dae_former.unused_parameters = false;
    EXPECT_NE(output(made(config)), output(made(small())));
    EXPECT_EQ(unused_parameters(config), std::vector<std::string>{});
  }
}

TEST(DaeFormer, UnusedParametersStandInTheDeepestLevelAndInNorms) {
  const std::vector<std::string> names = unused_parameters(small());
  for (const std::string& name : names)
    EXPECT_TRUE(name.starts_with("decoder2.") || name.find(".mlp.norm2.") != std::string::npos ||
                name.find(".mlp.norm3.") != std::string::npos)
        << name;
  int64_t lost = 0;
  const Network net = made(small());
  for (const std::string& name : names) lost += net.parameters.find(name)->value.numel();
  EXPECT_EQ(net.parameters.count() - lost,
            made(with([](Config& c) { c.unused_parameters = false; })).parameters.count());
}

// The largest of many uniform numbers lies just below their bound.
TEST(DaeFormer, EncoderStartsAsPyTorchDecoderAsXavier) {
  const Network net = made(small());
  const auto largest = [&](const char* name) {
    double most = 0;
    for (double v : net.parameters.find(name)->value.to_vector())
      most = std::fmax(most, std::fabs(v));
    return most;
  };
  const auto near = [](double value, double bound) {
    return value <= bound && value > 0.95 * bound;
  };
  EXPECT_TRUE(near(largest("encoder.stage2.block0.efficient.mlp.fc1.weight"), 1 / std::sqrt(16.0)));
  EXPECT_TRUE(
      near(largest("encoder.stage2.block0.efficient.mlp.depthwise.weight"), 1 / std::sqrt(9.0)));
  EXPECT_TRUE(
      near(largest("decoder1.block1.efficient.mlp.fc1.weight"), std::sqrt(6.0 / (16 + 64))));
  EXPECT_TRUE(near(largest("decoder1.block1.efficient.mlp.depthwise.weight"),
                   std::sqrt(6.0 / (9 + 9 * 64))));
  EXPECT_GT(largest("encoder.stage2.block0.efficient.mlp.fc1.bias"), 0);
  EXPECT_EQ(largest("decoder1.block1.efficient.mlp.fc1.bias"), 0);
}

TEST(DaeFormer, RefusesWhatDoesNotFit) {
  const auto text = [](void (*change)(Config&)) -> std::string {
    try {
      validate(with(change));
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  const std::pair<const char*, void (*)(Config&)> cases[] = {
      {"image [32, 40] is not a multiple of 16",
       [](Config& c) {
         c.image = {32, 40};
       }},
      {"channel_heads 3 do not divide the width 8", [](Config& c) { c.channel_heads = 3; }},
      {"efficient_heads 5 do not divide the key width 8", [](Config& c) { c.efficient_heads = 5; }},
      {"cross_heads 3 do not divide", [](Config& c) { c.cross_heads = 3; }},
      {"dims needs two to four widths", [](Config& c) { c.dims = {8}; }},
      {"level 1 of the decoder cannot halve 15",
       [](Config& c) {
         c.dims = {8, 15, 16}, c.channel_heads = 1;
       }},
      {"layers needs 3 positive numbers, got [1, 1]",
       [](Config& c) {
         c.layers = {1, 1};
       }},
      {"skips must lie in 0 ... 2", [](Config& c) { c.skips = 3; }},
      {"key_dims [16, 16, 24] exceed dims",
       [](Config& c) {
         c.key_dims = {16, 16, 24};
       }},
      {"repeat_fc1 makes no sense",
       [](Config& c) { c.repeat_fc1 = true, c.token_mlp = dae_former::TokenMlp::mix; }},
      {"cross_keys = decoder makes no sense",
       [](Config& c) { c.cross_keys = dae_former::CrossKeys::decoder, c.skips = 0; }},
  };
  for (const auto& [expected, change] : cases)
    EXPECT_NE(text(change).find(expected), std::string::npos) << text(change);
}

}  // namespace
}  // namespace voxlab
