// f32 convolution passes of the CPU dense core against a naive f64 sum, on every instruction set this machine has.
#include "tests/backend/dense_conv_support.h"

namespace voxlab::cpu {
namespace {

TEST(DenseConv, ShapesOfTheNetworks) {
  using A = std::array<int64_t, 3>;
  const A three = {3, 3, 3};
  const A one = {1, 1, 1};
  // 3x3x3 same-size, wide and narrow, with odd widths
  check_all_passes(
      {.in = {4, 6, 16}, .in_channels = 16, .out_channels = 16, .kernel = three, .pad = one});
  check_all_passes({.batch = 2,
                    .in = {3, 5, 7},
                    .in_channels = 32,
                    .out_channels = 48,
                    .kernel = three,
                    .pad = one});
  check_all_passes(
      {.in = {4, 4, 4}, .in_channels = 64, .out_channels = 96, .kernel = three, .pad = one});
  // stem of few channels, head of 14
  check_all_passes(
      {.in = {4, 9, 13}, .in_channels = 1, .out_channels = 16, .kernel = three, .pad = one});
  check_all_passes(
      {.in = {4, 8, 8}, .in_channels = 4, .out_channels = 32, .kernel = three, .pad = one});
  check_all_passes({.batch = 2, .in = {3, 5, 7}, .in_channels = 16, .out_channels = 14});
  // heads of few classes, whose weight gradients change sides
  check_all_passes({.batch = 2, .in = {3, 5, 7}, .in_channels = 32, .out_channels = 3});
  check_all_passes({.in = {5, 6, 7}, .in_channels = 19, .out_channels = 2});
  // downsampling, patch embedding, large-kernel stem
  check_all_passes({.in = {6, 8, 10},
                    .in_channels = 16,
                    .out_channels = 24,
                    .kernel = {2, 2, 2},
                    .stride = {2, 2, 2}});
  check_all_passes({.in = {4, 8, 12},
                    .in_channels = 1,
                    .out_channels = 32,
                    .kernel = {2, 4, 4},
                    .stride = {2, 4, 4}});
  check_all_passes({.in = {8, 9, 10},
                    .in_channels = 3,
                    .out_channels = 20,
                    .kernel = {7, 7, 7},
                    .stride = {2, 2, 2},
                    .pad = {3, 3, 3}});
  check_all_passes({.in = {5, 8, 9},
                    .in_channels = 16,
                    .out_channels = 16,
                    .kernel = three,
                    .stride = {2, 2, 2},
                    .pad = one});
  check_all_passes({.in = {4, 7, 9},
                    .in_channels = 8,
                    .out_channels = 16,
                    .kernel = three,
                    .stride = {1, 2, 2},
                    .pad = one});
  // two-dimensional
  check_all_passes({.batch = 2,
                    .in = {1, 14, 15},
                    .in_channels = 12,
                    .out_channels = 20,
                    .kernel = {1, 3, 3},
                    .stride = {1, 2, 2},
                    .pad = {0, 1, 1}});
  // depthwise and narrow groups
  check_all_passes({.in = {6, 6, 6},
                    .in_channels = 24,
                    .out_channels = 24,
                    .kernel = {7, 7, 7},
                    .pad = {3, 3, 3},
                    .groups = 24});
  check_all_passes({.batch = 2,
                    .in = {1, 9, 17},
                    .in_channels = 40,
                    .out_channels = 40,
                    .kernel = {1, 3, 3},
                    .pad = {0, 1, 1},
                    .groups = 40});
  check_all_passes(
      {.batch = 2, .in = {3, 4, 5}, .in_channels = 6, .out_channels = 24, .groups = 6});
  check_all_passes(
      {.batch = 2, .in = {3, 4, 5}, .in_channels = 24, .out_channels = 6, .groups = 6});
  for (const int64_t ratio : {1, 2, 4, 8}) {  // channel scaling, with and without a vector's tail
    for (const int64_t narrow : {16, 37}) {
      const ConvGeometry g = {.batch = 2, .in = {1, 9, 9}, .groups = narrow};
      ConvGeometry wide = g, back = g;
      wide.in_channels = back.out_channels = narrow;
      wide.out_channels = back.in_channels = narrow * ratio;
      check_all_passes(wide);
      check_all_passes(back);
    }
  }
  check_all_passes({.in = {1, 8, 8},
                    .in_channels = 8,
                    .out_channels = 12,
                    .kernel = {1, 3, 3},
                    .pad = {0, 1, 1},
                    .groups = 4});
}

// Large enough for Winograd's algorithm on every instruction set, with everything that an edge can be: odd sizes,
// channels that fill no vector, pads of 0 to 2 (whose data gradient pads by the rest), groups, one to four taps along
// D, a batch.
TEST(DenseConv, WinogradAtTheEdges) {
  const auto check = [](ConvGeometry g) {
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      const std::string_view forward = conv_forward(g, {}, {}, {});
      const std::string_view dgrad = conv_dgrad(g, {}, {}, {});
      const std::string_view wgrad = conv_wgrad(g, {}, {}, {});
      for (const std::string_view name : {forward, dgrad, wgrad})
        EXPECT_NE(name.find("winograd"), std::string_view::npos) << name << " " << describe(g);
    }
    check_all_passes(g);
  };
  check({.in = {5, 13, 15}, .in_channels = 16, .out_channels = 16, .kernel = {3, 3, 3}, .pad = {1, 1, 1}});
  check({.batch = 2, .in = {4, 12, 9}, .in_channels = 19, .out_channels = 50, .kernel = {3, 3, 3}, .pad = {1, 0, 2}});
  check({.in = {6, 14, 13}, .in_channels = 33, .out_channels = 17, .kernel = {4, 3, 3}, .pad = {0, 2, 0}});
  check({.batch = 3, .in = {1, 21, 23}, .in_channels = 24, .out_channels = 96, .kernel = {1, 3, 3}, .pad = {0, 1, 1}});
  check({.in = {4, 17, 16}, .in_channels = 36, .out_channels = 40, .kernel = {2, 3, 3}, .pad = {1, 1, 1}, .groups = 2});
  check({.in = {3, 24, 24}, .in_channels = 128, .out_channels = 64, .kernel = {3, 3, 3}, .pad = {1, 1, 1}});
}

// The same with three sides: odd depths, whose last tile is half empty, channels that fill no vector, long sums in two
// parts, groups. The weight gradient has three sides where cubes are many.
TEST(DenseConv, WinogradOnThreeSides) {
  const auto check = [](ConvGeometry g, bool many = false) {
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      for (const std::string_view name : {conv_forward(g, {}, {}, {}), conv_dgrad(g, {}, {}, {})})
        EXPECT_NE(name.find("winograd3"), std::string_view::npos) << name << " " << describe(g);
      const std::string_view wgrad = conv_wgrad(g, {}, {}, {});
      EXPECT_EQ(wgrad.find("winograd3") != std::string_view::npos, many) << wgrad << " " << describe(g);
    }
    check_all_passes(g);
  };
  check({.in = {13, 20, 22}, .in_channels = 35, .out_channels = 34, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, true);
  check({.batch = 2, .in = {8, 18, 17}, .in_channels = 51, .out_channels = 33, .kernel = {3, 3, 3}, .pad = {1, 0, 2}}, true);
  check({.in = {18, 18, 20}, .in_channels = 96, .out_channels = 80, .kernel = {3, 3, 3}, .pad = {0, 1, 1}, .groups = 2}, true);
  check({.in = {7, 19, 22}, .in_channels = 48, .out_channels = 48, .kernel = {3, 3, 3}, .pad = {1, 1, 1}});
  check({.batch = 2, .in = {8, 18, 17}, .in_channels = 51, .out_channels = 70, .kernel = {3, 3, 3}, .pad = {1, 0, 2}});
  check_some_channels({.in = {6, 20, 20}, .in_channels = 322, .out_channels = 336, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, "winograd3");
  check({.in = {6, 22, 24}, .in_channels = 96, .out_channels = 80, .kernel = {3, 3, 3}, .pad = {2, 1, 1}, .groups = 2});
}

// Sums larger than the caches, of more tiles than are transformed at a time; of so many channels that all columns are summed at
// one point before the next.
TEST(DenseConv, WinogradOfManyChannels) {
  check_some_channels({.in = {1, 75, 78}, .in_channels = 390, .out_channels = 380, .kernel = {1, 3, 3}, .pad = {0, 1, 1}}, "winograd");
  check_some_channels({.batch = 2, .in = {1, 17, 22}, .in_channels = 2048, .out_channels = 88, .kernel = {1, 3, 3}, .pad = {0, 1, 1}},
                      "winograd");
  check_some_channels({.in = {3, 15, 14}, .in_channels = 1800, .out_channels = 43, .kernel = {2, 3, 3}, .pad = {1, 1, 1}}, "winograd");
}

TEST(DenseConv, RandomGeometries) {
  std::mt19937 rng(7);
  for (int i = 0; i < 150; ++i) {
    check_all_passes(random_geometry(rng));
    if (testing::Test::HasFailure()) return;
  }
}

TEST(DenseConv, ImplementationNames) {
  const ConvGeometry dense = {.in = {2, 4, 4}, .in_channels = 16, .out_channels = 16};
  const ConvGeometry depthwise = {.in = {2, 4, 4},
                                  .in_channels = 16,
                                  .out_channels = 16,
                                  .kernel = {3, 3, 3},
                                  .pad = {1, 1, 1},
                                  .groups = 16};
  const ConvGeometry scale = {
      .in = {2, 4, 4}, .in_channels = 16, .out_channels = 64, .groups = 16};
  const Values v(4096);
  Values out(4096);
  const auto run = [&](const ConvGeometry& g, DType type, Precision precision) {
    return std::string(
        conv_forward(g, {v.data(), type}, {v.data(), type}, {out.data(), type}, {}, precision));
  };
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    const bool amx = has_amx(isa);
    const std::string level(name(std::min(isa, Isa::avx512)));
    const std::string bf16 = amx ? ".bf16" : "";
    const std::string tiles = "cpu.conv." + std::string(name(isa));
    const std::string fma = "cpu.conv." + level + (isa == Isa::plain ? "" : ".fma");
    EXPECT_EQ(run(dense, DType::f32, Precision::strict), fma);
    EXPECT_EQ(run(dense, DType::f32, Precision::bf16x3), amx ? tiles + ".bf16x3" : fma);
    EXPECT_EQ(run(dense, DType::bf16, Precision::strict),
              multiplies_bf16(isa) ? tiles + bf16 : "cpu.conv." + level + ".widened");
    EXPECT_EQ(run(depthwise, DType::f32, Precision::strict), "cpu.dwconv." + level);
    EXPECT_EQ(run(scale, DType::f32, Precision::strict), "cpu.chscale." + level);
  }
}

TEST(DenseConv, EpilogueAddsBiasAndActivates) {
  const ConvGeometry g = {
      .in = {3, 4, 9}, .in_channels = 5, .out_channels = 19, .kernel = {3, 3, 3}, .pad = {1, 1, 1}};
  const Values x = random_values(size_x(g), 1);
  const Values w = random_values(size_w(g), 2);
  const Values bias = random_values(g.out_channels, 3);
  const Sums sums = reference_forward(g, x, w);
  const auto activate = [](double v, Activation a) {
    switch (a) {
      case Activation::none:
        return v;
      case Activation::relu:
        return v > 0 ? v : 0.0;
      case Activation::leaky_relu:
        return v > 0 ? v : 0.1 * v;
      case Activation::gelu:
        return 0.5 * v * (1.0 + std::erf(v / std::sqrt(2.0)));
      case Activation::hardswish:
        return v * std::clamp(v + 3.0, 0.0, 6.0) / 6;
    }
    return v;
  };
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    for (const Activation a :
         {Activation::none, Activation::relu, Activation::leaky_relu, Activation::gelu, Activation::hardswish}) {
      Values y(static_cast<size_t>(size_y(g)));
      conv_forward(g, in(x), in(w), {y.data(), DType::f32},
                   {.bias = bias.data(), .activation = a, .slope = 0.1F});
      for (size_t i = 0; i < y.size(); ++i) {
        const double want = activate(sums.value[i] + bias[i % 19], a);
        ASSERT_NEAR(y[i], want, 1e-5) << name(isa) << " activation " << static_cast<int>(a);
      }
    }
  }
}

// 17280 products an output: the deepest decoder level of an nnU-Net. Summed one by one in f32 the
// error is about 2e-6 of the result's size, in parts a third of that.
TEST(DenseConv, LongSumsAreAddedInParts) {
  const ConvGeometry g = {.in = {4, 4, 4},
                          .in_channels = 640,
                          .out_channels = 19,
                          .kernel = {3, 3, 3},
                          .pad = {1, 1, 1}};
  const Values x = random_values(size_x(g), 1);
  const Values w = random_values(size_w(g), 2);
  const Values bias = random_values(g.out_channels, 3);
  const Sums sums = reference_forward(g, x, w);
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    Values y(static_cast<size_t>(size_y(g)));
    conv_forward(g, in(x), in(w), {y.data(), DType::f32},
                 {.bias = bias.data(), .activation = Activation::leaky_relu, .slope = 0.5F});
    double error = 0, size = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      const double sum = sums.value[i] + bias[i % 19], want = sum > 0 ? sum : 0.5 * sum;
      error += (y[i] - want) * (y[i] - want);
      size += want * want;
    }
    EXPECT_LT(std::sqrt(error / size), 1e-6) << name(isa);
  }
}

TEST(DenseConv, TransposedConvolutionTakesABias) {
  const ConvGeometry g = {.in = {4, 8, 8},
                          .in_channels = 6,
                          .out_channels = 10,
                          .kernel = {2, 4, 4},
                          .stride = {2, 4, 4}};
  const Values dy = random_values(size_y(g), 1);
  const Values w = random_values(size_w(g), 2);
  const Values bias = random_values(g.in_channels, 3);
  const Sums want = reference_dgrad(g, dy, w);
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    Values dx(static_cast<size_t>(size_x(g)));
    conv_dgrad(g, in(dy), in(w), {dx.data(), DType::f32}, {.bias = bias.data()});
    for (size_t i = 0; i < dx.size(); ++i) ASSERT_NEAR(dx[i], want.value[i] + bias[i % 6], 1e-5);
  }
}

// A non-finite input value must reach exactly the outputs whose windows hold it.
TEST(DenseConv, InfinityAndNanStayInTheirWindow) {
  std::vector<std::pair<Isa, Precision>> modes;
  for (const Isa isa : available_isas()) {
    modes.push_back({isa, Precision::strict});
    modes.push_back({isa, Precision::bf16x3});
    modes.push_back({isa, Precision::bf16});
  }
  for (const int64_t groups : {int64_t{1}, int64_t{8}}) {
    const ConvGeometry g = {.in = {1, 9, 9},
                            .in_channels = 8,
                            .out_channels = 8,
                            .kernel = {1, 3, 3},
                            .pad = {0, 1, 1},
                            .groups = groups};
    for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
      Values x = random_values(size_x(g), 1);
      const Values w = random_values(size_w(g), 2);
      x[(4 * 9 + 4) * 8 + 3] = bad;
      for (const auto& [isa, precision] : modes) {
        const IsaScope scope(isa);
        Values y(static_cast<size_t>(size_y(g)));
        conv_forward(g, in(x), in(w), {y.data(), DType::f32}, {}, precision);
        for (int64_t h = 0; h < 9; ++h) {
          for (int64_t v = 0; v < 9; ++v) {
            for (int64_t c = 0; c < 8; ++c) {
              const bool hit =
                  std::abs(h - 4) <= 1 && std::abs(v - 4) <= 1 && (groups == 1 || c == 3);
              EXPECT_EQ(std::isfinite(y[static_cast<size_t>((h * 9 + v) * 8 + c)]), !hit)
                  << name(isa) << " at " << h << " " << v << " channel " << c;
            }
          }
        }
      }
    }
  }
}

TEST(DenseConv, SameThreadsSameBits) {
  const ConvGeometry g = {.in = {9, 16, 16},
                          .in_channels = 16,
                          .out_channels = 16,
                          .kernel = {3, 3, 3},
                          .pad = {1, 1, 1}};
  const Values x = random_values(size_x(g), 1);
  const Values dy = random_values(size_y(g), 2);
  Values first(static_cast<size_t>(size_w(g)));
  conv_wgrad(g, in(x), in(dy), {first.data(), DType::f32});
  for (int i = 0; i < 5; ++i) {
    Values again(first.size());
    conv_wgrad(g, in(x), in(dy), {again.data(), DType::f32});
    ASSERT_EQ(std::memcmp(first.data(), again.data(), first.size() * sizeof(float)), 0);
  }
}

TEST(DenseConv, BadGeometryIsAnError) {
  const Values v(64);
  Values out(64);
  const ConvGeometry small = {.in = {1, 2, 2}, .kernel = {1, 3, 3}};
  EXPECT_THROW(conv_forward(small, in(v), in(v), {out.data(), DType::f32}), Error);
  const ConvGeometry groups = {.in = {1, 2, 2}, .in_channels = 3, .out_channels = 4, .groups = 2};
  EXPECT_THROW(conv_forward(groups, in(v), in(v), {out.data(), DType::f32}), Error);
  const ConvGeometry good = {.in = {1, 2, 2}};
  EXPECT_THROW(conv_forward(good, {v.data(), DType::i32}, in(v), {out.data(), DType::f32}), Error);
}

}  // namespace
}  // namespace voxlab::cpu
