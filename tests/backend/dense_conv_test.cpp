// Convolution passes of the CPU dense core against a naive f64 sum, on every instruction set this
// machine has.
#include <bit>
#include <cstring>
#include <limits>
#include <map>
#include <utility>

#include "runtime/backend/cpu/dense/dense.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/isa.h"
#include "runtime/core/error.h"
#include "runtime/core/parallel.h"
#include "runtime/core/tensor.h"
#include "tests/backend/dense_reference.h"

namespace voxlab::cpu {
namespace {

// f32 rounds each of up to a few thousand products; errors grow like the square root of their
// number.
constexpr double f32_limit = 2e-6;
constexpr float untouched = 12345.0F;

ConstBuffer in(const Values& v) { return {v.data(), DType::f32}; }

// The norm of the error over the result's.
double relative_error(const Values& got, const Sums& want) {
  double error = 0, size = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - want.value[i]) * (got[i] - want.value[i]);
    size += want.value[i] * want.value[i];
  }
  return std::sqrt(error / size);
}

// Outputs have a guard band behind them that must stay untouched.
Values guarded(int64_t n) { return Values(static_cast<size_t>(n) + 32, untouched); }

void remove_guard(Values& v, const std::string& what) {
  for (size_t i = v.size() - 32; i < v.size(); ++i) ASSERT_EQ(v[i], untouched) << what;
  v.resize(v.size() - 32);
}

void check_all_passes(const ConvGeometry& g) {
  const Values x = random_values(size_x(g), 1);
  const Values w = random_values(size_w(g), 2);
  const Values dy = random_values(size_y(g), 3);
  const Sums y_want = reference_forward(g, x, w);
  const Sums dx_want = reference_dgrad(g, dy, w);
  const Sums dw_want = reference_wgrad(g, x, dy);
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    const std::string what = std::string(name(isa)) + " " + describe(g);
    Values y = guarded(size_y(g));
    conv_forward(g, in(x), in(w), {y.data(), DType::f32});
    remove_guard(y, what);
    expect_close(y, y_want, f32_limit, "forward " + what);
    Values dx = guarded(size_x(g));
    conv_dgrad(g, in(dy), in(w), {dx.data(), DType::f32});
    remove_guard(dx, what);
    expect_close(dx, dx_want, f32_limit, "dgrad " + what);
    Values dw = guarded(size_w(g));
    conv_wgrad(g, in(x), in(dy), {dw.data(), DType::f32});
    remove_guard(dw, what);
    expect_close(dw, dw_want, f32_limit, "wgrad " + what);
  }
}

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
// parts, groups.
TEST(DenseConv, WinogradOnThreeSides) {
  const auto check = [](ConvGeometry g) {
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      for (const std::string_view name : {conv_forward(g, {}, {}, {}), conv_dgrad(g, {}, {}, {})})
        EXPECT_NE(name.find("winograd3"), std::string_view::npos) << name << " " << describe(g);
    }
    check_all_passes(g);
  };
  check({.in = {7, 19, 22}, .in_channels = 48, .out_channels = 48, .kernel = {3, 3, 3}, .pad = {1, 1, 1}});
  check({.batch = 2, .in = {8, 18, 17}, .in_channels = 51, .out_channels = 70, .kernel = {3, 3, 3}, .pad = {1, 0, 2}});
  check({.in = {6, 20, 20}, .in_channels = 322, .out_channels = 336, .kernel = {3, 3, 3}, .pad = {1, 1, 1}});
  check({.in = {6, 22, 24}, .in_channels = 96, .out_channels = 80, .kernel = {3, 3, 3}, .pad = {2, 1, 1}, .groups = 2});
}

ConvGeometry random_geometry(std::mt19937& rng) {
  const auto pick = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(rng);
  };
  constexpr std::array<int64_t, 12> channels = {1, 2, 3, 4, 5, 8, 14, 16, 17, 24, 33, 48};
  while (true) {
    ConvGeometry g;
    g.batch = pick(1, 2);
    const bool flat = pick(0, 2) == 0;
    for (size_t i = 0; i < 3; ++i) {
      if (flat && i == 0) continue;
      g.in[i] = pick(1, i == 2 ? 20 : 7);
      g.kernel[i] = pick(1, 4);
      g.stride[i] = pick(1, 3);
      g.pad[i] = pick(0, 2);
      g.dilation[i] = pick(1, 2);
    }
    const int64_t per_in = channels[static_cast<size_t>(pick(0, 11))];
    const int64_t per_out = channels[static_cast<size_t>(pick(0, 11))];
    g.groups = pick(0, 3) == 0 ? pick(2, 5) : 1;
    if (pick(0, 5) == 0) {
      g.groups = per_in;
      g.in_channels = g.out_channels = per_in;
    } else {
      g.in_channels = per_in * g.groups;
      g.out_channels = per_out * g.groups;
    }
    const auto out = g.out();
    if (out[0] < 1 || out[1] < 1 || out[2] < 1) continue;
    const int64_t products =
        g.batch * volume(out) * volume(g.kernel) * (g.in_channels / g.groups) * g.out_channels;
    if (products < 4'000'000) return g;
  }
}

TEST(DenseConv, RandomGeometries) {
  std::mt19937 rng(7);
  for (int i = 0; i < 150; ++i) {
    check_all_passes(random_geometry(rng));
    if (testing::Test::HasFailure()) return;
  }
}

// bf16 inputs have exact products; only the f32 sums and, for bf16 outputs, the last rounding
// differ.
Values rounded(const Values& v) {
  Values r;
  for (const float x : v) r.push_back(static_cast<float>(bfloat16(x)));
  return r;
}

std::vector<uint16_t> halves(const Values& v) {
  std::vector<uint16_t> h;
  for (const float x : v) h.push_back(bfloat16(x).bits);
  return h;
}

Values widened(const std::vector<uint16_t>& h) {
  Values v;
  for (const uint16_t bits : h) v.push_back(std::bit_cast<float>(uint32_t{bits} << 16));
  return v;
}

bool has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// Minimal filtering on bf16 rounds its points, sums of factors, whose products then nearly cancel: a step of bf16 of the
// sum of magnitudes bounds what is left of it. Other products of bf16 are exact.
double product_limit(std::string_view used) { return has(used, "bf16.winograd") ? 1.0 / 256 : f32_limit; }

void check_bf16(const ConvGeometry& g) {
  const Values x = rounded(random_values(size_x(g), 1));
  const Values w = rounded(random_values(size_w(g), 2));
  const Values dy = rounded(random_values(size_y(g), 3));
  const Sums y_want = reference_forward(g, x, w);
  const Sums dx_want = reference_dgrad(g, dy, w);
  const Sums dw_want = reference_wgrad(g, x, dy);
  const auto xh = halves(x);
  const auto wh = halves(w);
  const auto dyh = halves(dy);
  const auto in16 = [](const std::vector<uint16_t>& v) {
    return ConstBuffer{v.data(), DType::bf16};
  };
  constexpr double half_step = 1.0 / 256;  // of a bf16 output
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    const std::string what = std::string(name(isa)) + " bf16 " + describe(g);
    Values y = guarded(size_y(g));
    const double forward = product_limit(conv_forward(g, in16(xh), in16(wh), {y.data(), DType::f32}));
    remove_guard(y, what);
    expect_close(y, y_want, forward, "forward " + what);
    std::vector<uint16_t> yh(y.size());
    conv_forward(g, in16(xh), in16(wh), {yh.data(), DType::bf16});
    expect_close(widened(yh), y_want, half_step + forward, "forward to bf16 " + what);
    Values dx = guarded(size_x(g));
    const double dgrad = product_limit(conv_dgrad(g, in16(dyh), in16(wh), {dx.data(), DType::f32}));
    remove_guard(dx, what);
    expect_close(dx, dx_want, dgrad, "dgrad " + what);
    Values dw = guarded(size_w(g));
    const double wgrad = product_limit(conv_wgrad(g, in16(xh), in16(dyh), {dw.data(), DType::f32}));
    remove_guard(dw, what);
    expect_close(dw, dw_want, wgrad, "wgrad " + what);
  }
}

// Precision::bf16 on f32 tensors: as the name says, products of rounded factors, of rounded points, or of f32.
void check_rounding(const ConvGeometry& g) {
  const Values x = random_values(size_x(g), 1), w = random_values(size_w(g), 2), dy = random_values(size_y(g), 3);
  std::map<std::pair<char, bool>, Sums> sums;  // of y, of dx ('x') or dw ('w'), of rounded factors or not
  const auto want = [&](char of, std::string_view used) -> const Sums& {
    const bool factors = (has(used, "bf16") && !has(used, "winograd")) || has(used, "widened");
    Sums& found = sums.try_emplace({of, factors}, 0).first->second;
    if (!found.value.empty()) return found;
    const auto reference = of == 'y' ? reference_forward : of == 'x' ? reference_dgrad : reference_wgrad;
    const Values &first = of == 'x' ? dy : x, &second = of == 'w' ? dy : w;
    return found = factors ? reference(g, rounded(first), rounded(second)) : reference(g, first, second);
  };
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    Values y = guarded(size_y(g)), dx = guarded(size_x(g));
    const auto forward = conv_forward(g, in(x), in(w), {y.data(), DType::f32}, {}, Precision::bf16);
    const std::string what = " of f32 " + std::string(name(isa)) + " " + describe(g);
    remove_guard(y, std::string(forward) + what);
    expect_close(y, want('y', forward), product_limit(forward), std::string(forward) + what);
    const auto dgrad = conv_dgrad(g, in(dy), in(w), {dx.data(), DType::f32}, {}, Precision::bf16);
    remove_guard(dx, std::string(dgrad) + what);
    expect_close(dx, want('x', dgrad), product_limit(dgrad), std::string(dgrad) + what);
    Values dw = guarded(size_w(g));
    const auto wgrad = conv_wgrad(g, in(x), in(dy), {dw.data(), DType::f32}, Precision::bf16);
    remove_guard(dw, std::string(wgrad) + what);
    expect_close(dw, want('w', wgrad), product_limit(wgrad), std::string(wgrad) + " of weights" + what);
  }
}

// A bf16 number holds 8 bits: rounding to it loses at most 2^-8 of a factor, and rounding what is left, which lies below 2^-8
// of it, at most 2^-17. A product loses that of both factors and low * low, at most 2^-16: 2^-15, where all meet in one
// product; and the rounding of f32 sums. SplitBf16StaysBelowItsBound measures many.
constexpr double split_limit = 0x1p-15 + f32_limit;

void check_split(const ConvGeometry& g) {
  const Values x = random_values(size_x(g), 1);
  const Values w = random_values(size_w(g), 2);
  const Values dy = random_values(size_y(g), 3);
  const Sums y_want = reference_forward(g, x, w);
  const Sums dx_want = reference_dgrad(g, dy, w);
  const Sums dw_want = reference_wgrad(g, x, dy);
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    const std::string what = std::string(name(isa)) + " bf16x3 " + describe(g);
    Values y = guarded(size_y(g));
    conv_forward(g, in(x), in(w), {y.data(), DType::f32}, {}, Precision::bf16x3);
    remove_guard(y, what);
    expect_close(y, y_want, split_limit, "forward " + what);
    Values dx = guarded(size_x(g));
    conv_dgrad(g, in(dy), in(w), {dx.data(), DType::f32}, {}, Precision::bf16x3);
    remove_guard(dx, what);
    expect_close(dx, dx_want, split_limit, "dgrad " + what);
    Values dw = guarded(size_w(g));
    conv_wgrad(g, in(x), in(dy), {dw.data(), DType::f32}, Precision::bf16x3);
    remove_guard(dw, what);
    expect_close(dw, dw_want, split_limit, "wgrad " + what);
  }
}

// One channel, whose taps are one run of K: odd sizes, rows that fall into several blocks, borders of two, strides and
// dilation along D and H (along W taps are no longer neighbours), more columns than a panel has, two samples, two sides.
TEST(DenseConv, AllTapsOfOneChannelInOneRun) {
  const std::array<ConvGeometry, 7> geometries{
      ConvGeometry{.in = {5, 9, 131}, .in_channels = 1, .out_channels = 16, .kernel = {3, 3, 3}, .pad = {1, 1, 1}},
      ConvGeometry{.batch = 2, .in = {4, 37, 23}, .in_channels = 1, .out_channels = 70, .kernel = {3, 3, 3}, .pad = {2, 2, 2}},
      ConvGeometry{.in = {7, 11, 19}, .in_channels = 1, .out_channels = 48, .kernel = {3, 3, 3}, .stride = {2, 2, 1}, .pad = {1, 1, 1}},
      ConvGeometry{.in = {9, 12, 17}, .in_channels = 1, .out_channels = 20, .kernel = {3, 3, 3}, .pad = {2, 3, 1}, .dilation = {2, 3, 1}},
      ConvGeometry{.batch = 2, .in = {1, 40, 33}, .in_channels = 1, .out_channels = 17, .kernel = {1, 3, 3}, .pad = {0, 1, 1}},
      ConvGeometry{.in = {6, 7, 29}, .in_channels = 1, .out_channels = 16, .kernel = {2, 4, 4}, .pad = {1, 2, 2}},
      ConvGeometry{.in = {3, 5, 21}, .in_channels = 3, .out_channels = 48, .kernel = {3, 3, 3}, .pad = {1, 1, 1}, .groups = 3}};
  for (const ConvGeometry& g : geometries) {
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      const std::string used(conv_forward(g, {}, {}, {}, {}, Precision::bf16x3));
      EXPECT_EQ(used.ends_with(".bf16x3"), has_amx(isa)) << used;
    }
    check_split(g);
    check_rounding(g);
  }
}

TEST(DenseConv, Bf16RandomGeometries) {
  std::mt19937 rng(17);
  for (int i = 0; i < 60 && !testing::Test::HasFailure(); ++i) check_bf16(random_geometry(rng));
}

TEST(DenseConv, RoundedFactorsRandomGeometries) {
  std::mt19937 rng(37);
  for (int i = 0; i < 60 && !testing::Test::HasFailure(); ++i) check_rounding(random_geometry(rng));
}

// Edges of minimal filtering on bf16, with two and three sides: odd sizes, odd counts of channels (which stay direct on
// one side), groups, long sums.
TEST(DenseConv, RoundedPointsAtTheEdges) {
  const auto check = [](ConvGeometry g, std::string_view form) {
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      const auto used = conv_forward(g, {}, {}, {}, {}, Precision::bf16);
      EXPECT_EQ(used == "cpu.conv.avx512_bf16." + std::string(form), isa == Isa::avx512_bf16) << used;
    }
    check_rounding(g);
  };
  check({.in = {5, 23, 25}, .in_channels = 16, .out_channels = 16, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, "winograd");
  check({.batch = 2, .in = {1, 31, 33}, .in_channels = 24, .out_channels = 50, .kernel = {1, 3, 3}, .pad = {0, 0, 2}}, "winograd");
  check({.in = {4, 27, 26}, .in_channels = 36, .out_channels = 41, .kernel = {2, 3, 3}, .pad = {1, 1, 1}}, "winograd");
  check({.in = {7, 19, 20}, .in_channels = 64, .out_channels = 47, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, "winograd3");
  check({.in = {4, 10, 10}, .in_channels = 664, .out_channels = 64, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, "winograd3");
  check({.in = {4, 14, 16}, .in_channels = 192, .out_channels = 160, .kernel = {3, 3, 3}, .pad = {2, 1, 1}, .groups = 2},
        "winograd3");
}

// Weight gradients of bf16 x and dy, in any of their places: the bits of the same values in f32.
void check_halves(const ConvGeometry& g) {
  const Values x = rounded(random_values(size_x(g), 1)), dy = rounded(random_values(size_y(g), 2));
  const auto xh = halves(x), dyh = halves(dy);
  const ConstBuffer from[] = {in(x), {xh.data(), DType::bf16}}, of[] = {in(dy), {dyh.data(), DType::bf16}};
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    EXPECT_EQ(wgrad_takes_bf16(g, Precision::bf16), has_amx(isa)) << describe(g);
    EXPECT_FALSE(wgrad_takes_bf16(g, Precision::bf16x3));
    if (!has_amx(isa)) continue;
    Values expected(static_cast<size_t>(size_w(g)));
    conv_wgrad(g, from[0], of[0], {expected.data(), DType::f32}, Precision::bf16);
    for (const int types : {1, 2, 3}) {
      Values dw(expected.size());
      const auto used = conv_wgrad(g, from[types & 1], of[types >> 1], {dw.data(), DType::f32}, Precision::bf16);
      EXPECT_TRUE(has(used, ".bf16")) << used;
      EXPECT_EQ(dw, expected) << name(isa) << describe(g) << types;
    }
  }
}

// Sums that no second-level cache holds go to the gradient as they are done: in one visit or several, of samples, blocks or
// planes; of taps along D that meet no plane, or none of the last block's; of channels in slices and parts of tiles. The bits
// are the same wherever the gradient lies and whether it passes the caches.
TEST(DenseConv, WeightGradientsWithLargeSums) {
  using A = std::array<int64_t, 3>;
  const A three = {3, 3, 3}, one = {1, 1, 1};
  const std::vector<ConvGeometry> all = {
      {.in = {1, 9, 11}, .in_channels = 128, .out_channels = 128, .kernel = three, .pad = one},
      {.in = {4, 4, 4}, .in_channels = 104, .out_channels = 136, .kernel = three, .pad = one},
      {.batch = 2, .in = {2, 7, 6}, .in_channels = 96, .out_channels = 144, .kernel = three, .pad = one},
      {.in = {13, 12, 12}, .in_channels = 72, .out_channels = 136, .kernel = three, .pad = one},
      {.in = {9, 9, 8}, .in_channels = 112, .out_channels = 128, .kernel = three, .stride = {2, 2, 2}, .pad = one},
      {.in = {5, 6, 5}, .in_channels = 112, .out_channels = 128, .kernel = three, .stride = {4, 1, 1}, .pad = one},
      {.in = {1, 16, 16}, .in_channels = 1024, .out_channels = 64, .kernel = {1, 3, 3}, .pad = {0, 1, 1}},
      {.batch = 2, .in = {1, 14, 14}, .in_channels = 320, .out_channels = 112, .kernel = {1, 3, 3}, .pad = {0, 1, 1}},
      {.in = {1, 40, 40}, .in_channels = 256, .out_channels = 128, .kernel = {1, 3, 3}, .pad = {0, 1, 1}},
      {.in = {1, 1, 50}, .in_channels = 512, .out_channels = 800}};
  for (const ConvGeometry& g : all) {
    const Values x = rounded(random_values(size_x(g), 1)), dy = rounded(random_values(size_y(g), 2));
    const Sums want = reference_wgrad(g, x, dy);
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      if (!has_amx(isa)) continue;
      for (const Precision precision : {Precision::bf16, Precision::bf16x3}) {
        const std::string what = std::string(name(isa)) + " " + describe(g);
        Values dw = guarded(size_w(g));
        conv_wgrad(g, in(x), in(dy), {dw.data(), DType::f32}, precision);
        remove_guard(dw, what);
        expect_close(dw, want, precision == Precision::bf16 ? f32_limit : split_limit, what);
        const Tensor lines = Tensor::full({size_w(g)}, 1, DType::f32);
        conv_wgrad(g, in(x), in(dy), {lines.data<float>(), DType::f32, true}, precision);
        EXPECT_EQ(lines.to_vector(), std::vector<double>(dw.begin(), dw.end())) << what;
      }
    }
  }
}

// Data gradients whose weights become tiles where they lie: depth blocks of one tap, also in slabs, and all that do not.
TEST(DenseConv, TransposedWeightsAsTiles) {
  for (const int64_t out : {16, 32, 40, 64, 1056}) {
    check_split({.in = {1, 7, 9}, .in_channels = 40, .out_channels = out, .kernel = {1, 3, 3}, .pad = {0, 1, 1}});
    check_split({.in = {3, 7, 9}, .in_channels = 16, .out_channels = out, .kernel = {2, 1, 3}, .stride = {2, 1, 2}, .dilation = {1, 1, 2}});
  }
}

Sums exact(const Values& v) {
  Sums s(static_cast<int64_t>(v.size()));
  s.value.assign(v.begin(), v.end());
  return s;
}

// Weight gradients of an input in two parts: the bits of the joined one where tiles read both as they lie, else nearly so.
void check_two_inputs(const ConvGeometry& g, int64_t rest) {
  const Values x = random_values(size_x(g), 1), dy = random_values(size_y(g), 2);
  const int64_t first = g.in_channels - rest;
  Values a, b;
  for (int64_t i = 0; i < size_x(g) / g.in_channels; ++i) {
    const auto row = x.begin() + i * g.in_channels;
    a.insert(a.end(), row, row + first);
    b.insert(b.end(), row + first, row + g.in_channels);
  }
  const auto b_half = halves(b);
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    for (const Precision precision : {Precision::strict, Precision::bf16x3, Precision::bf16}) {
      if (precision == Precision::bf16x3 && !has_amx(isa)) continue;
      EXPECT_EQ(wgrad_takes_two(g, rest, precision), has_amx(isa) && precision != Precision::strict && first % 16 == 0) << describe(g);
      Values expected(static_cast<size_t>(size_w(g))), dw(expected.size());
      conv_wgrad(g, in(x), in(dy), {expected.data(), DType::f32}, precision);
      conv_wgrad(g, in(a), in(dy), {dw.data(), DType::f32}, precision, {in(b), rest});
      constexpr double roundings = 5e-3;  // of bf16, on either side
      if (wgrad_takes_two(g, rest, precision) || precision == Precision::strict) {
        EXPECT_EQ(dw, expected) << name(isa) << describe(g);
      } else {  // joined for the f32 kernels
        EXPECT_LT(relative_error(dw, exact(expected)), roundings) << name(isa) << describe(g);
      }
      if (precision != Precision::bf16) continue;
      conv_wgrad(g, in(a), in(dy), {dw.data(), DType::f32}, precision, {{b_half.data(), DType::bf16}, rest});
      EXPECT_LT(relative_error(dw, exact(expected)), roundings) << name(isa) << describe(g);
    }
  }
}

// Weight gradients on tiles of bf16: channels that fill no tile, rows that fill no depth block, several blocks, strides,
// dilation, groups, a batch, kernels of 1 to 5; in one part and in two.
TEST(DenseConv, WeightGradientOnTiles) {
  const auto check = [](ConvGeometry g) {
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      if (!has_amx(isa)) continue;
      EXPECT_TRUE(has(conv_wgrad(g, {}, {}, {}, Precision::bf16), ".bf16")) << describe(g);
      EXPECT_TRUE(has(conv_wgrad(g, {}, {}, {}, Precision::bf16x3), ".bf16x3")) << describe(g);
    }
    check_rounding(g);
    check_split(g);
    check_halves(g);
  };
  check({.in = {3, 7, 24}, .in_channels = 32, .out_channels = 40, .kernel = {3, 3, 3}, .pad = {1, 1, 1}});
  check({.batch = 2, .in = {5, 6, 33}, .in_channels = 35, .out_channels = 50, .kernel = {1, 3, 5}, .pad = {0, 0, 2}});
  check({.in = {1, 1, 277}, .in_channels = 200, .out_channels = 250});
  check({.in = {4, 9, 66}, .in_channels = 128, .out_channels = 126, .kernel = {2, 2, 2}, .dilation = {1, 2, 3}, .groups = 2});
  check({.in = {9, 24, 20}, .in_channels = 48, .out_channels = 33, .kernel = {3, 3, 3}, .pad = {1, 1, 1}});
  check({.in = {3, 10, 10}, .in_channels = 160, .out_channels = 130, .kernel = {3, 3, 3}, .pad = {1, 1, 1}});
  check({.in = {9, 12, 63}, .in_channels = 64, .out_channels = 150, .kernel = {3, 3, 3}, .stride = {2, 2, 2}, .pad = {1, 1, 1}});
  check({.in = {4, 9, 58}, .in_channels = 64, .out_channels = 80, .kernel = {2, 2, 2}, .stride = {2, 2, 2}});
  check({.in = {1, 20, 126}, .in_channels = 96, .out_channels = 96, .kernel = {1, 5, 4}, .stride = {1, 3, 2}, .pad = {0, 1, 2}});
  check_two_inputs({.in = {3, 7, 24}, .in_channels = 52, .out_channels = 40, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, 20);
  check_two_inputs({.in = {9, 12, 63}, .in_channels = 64, .out_channels = 150, .kernel = {3, 3, 3}, .stride = {2, 2, 2}, .pad = {1, 1, 1}}, 16);
  check_two_inputs({.in = {1, 20, 30}, .in_channels = 390, .out_channels = 100, .kernel = {1, 3, 3}, .pad = {0, 1, 1}}, 134);
  check_two_inputs({.in = {3, 7, 24}, .in_channels = 52, .out_channels = 40, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, 30);
  // Slices of input channels.
  check({.in = {1, 20, 30}, .in_channels = 390, .out_channels = 100, .kernel = {1, 3, 3}, .pad = {0, 1, 1}});
  // Taps along W joined to few channels.
  check({.in = {5, 21, 30}, .in_channels = 4, .out_channels = 64, .kernel = {3, 4, 3}, .pad = {1, 1, 1}});
  check({.batch = 2, .in = {4, 12, 67}, .in_channels = 5, .out_channels = 70, .kernel = {3, 3, 5}, .stride = {1, 2, 2}, .pad = {1, 0, 3}});
  check({.in = {9, 20, 40}, .in_channels = 1, .out_channels = 48, .kernel = {7, 7, 7}, .stride = {2, 2, 2}, .pad = {3, 3, 3}});
}

// What tiles do on the way gives what passes of their own give: an input in two parts the bits of the joined one, a
// normalised input those of one that was normalised before, and the moments of the output as it is stored.
TEST(DenseConv, ExtrasOnTiles) {
  const auto check = [](const ConvGeometry& g, int64_t rest) {
    const int64_t positions = size_x(g) / g.in_channels, first = g.in_channels - rest, channels = g.in_channels;
    const Values x = random_values(size_x(g), 1), w = random_values(size_w(g), 2), bias = random_values(g.out_channels, 3);
    Values a, b;
    for (int64_t i = 0; i < positions; ++i) {
      const auto row = x.begin() + i * channels;
      a.insert(a.end(), row, row + first);
      b.insert(b.end(), row + first, row + channels);
    }
    const Values mean = random_values(g.batch * channels, 4), scale = random_values(g.batch * channels, 5), shift = random_values(g.batch * channels, 6);
    Values normal(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      const size_t c = i / static_cast<size_t>(positions / g.batch * channels) * static_cast<size_t>(channels) + i % static_cast<size_t>(channels);
      const float v = std::fma(x[i] - mean[c], scale[c], shift[c]);
      normal[i] = v < 0 ? 0.25F * v : v;
    }
    const InputNorm norm = {mean.data(), scale.data(), shift.data(), Activation::leaky_relu, 0.25F};
    const Epilogue epilogue = {.bias = bias.data(), .activation = Activation::leaky_relu, .slope = 0.5F};
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      EXPECT_EQ(runs_on_tiles(g, Precision::strict), "");
      for (const Precision precision : {Precision::bf16x3, Precision::bf16}) {
        ASSERT_EQ(!runs_on_tiles(g, precision).empty(), has_amx(isa));
        if (!has_amx(isa)) continue;
        Values want(static_cast<size_t>(size_y(g))), got(want.size()), moments(static_cast<size_t>(2 * g.batch * g.out_channels));
        conv_forward(g, in(x), in(w), {want.data(), DType::f32}, epilogue, precision);
        ASSERT_TRUE(conv_forward_on_tiles(g, in(a), {.second = {in(b), rest}, .moments = moments.data()}, in(w), {got.data(), DType::f32}, epilogue, precision));
        EXPECT_EQ(std::memcmp(want.data(), got.data(), want.size() * sizeof(float)), 0) << name(isa) << describe(g);
        const auto columns = static_cast<size_t>(g.out_channels), rows = got.size() / columns / static_cast<size_t>(g.batch);
        for (size_t sample = 0; sample < static_cast<size_t>(g.batch); ++sample)
          for (size_t c = 0; c < columns; ++c) {
            double middle = 0, variance = 0;
            const auto value = [&](size_t r) { return double{got[(sample * rows + r) * columns + c]}; };
            for (size_t r = 0; r < rows; ++r) middle += value(r) / static_cast<double>(rows);
            for (size_t r = 0; r < rows; ++r) variance += (value(r) - middle) * (value(r) - middle) / static_cast<double>(rows);
            const size_t at = 2 * (sample * columns + c);
            EXPECT_NEAR(moments[at], middle, 1e-6 * std::sqrt(variance + middle * middle)) << name(isa) << describe(g);
            EXPECT_NEAR(moments[at + 1], variance, 2e-6 * variance) << name(isa) << describe(g);
          }
        conv_forward(g, in(normal), in(w), {want.data(), DType::f32}, epilogue, precision);
        ASSERT_TRUE(conv_forward_on_tiles(g, in(x), {.norm = &norm}, in(w), {got.data(), DType::f32}, epilogue, precision));
        EXPECT_EQ(std::memcmp(want.data(), got.data(), want.size() * sizeof(float)), 0) << name(isa) << describe(g);
        Values bad = x;
        bad[bad.size() / 2] = std::numeric_limits<float>::infinity();
        EXPECT_FALSE(conv_forward_on_tiles(g, in(bad), {.norm = &norm}, in(w), {got.data(), DType::f32}, epilogue, precision));
      }
    }
  };
  check({.in = {3, 9, 10}, .in_channels = 40, .out_channels = 48, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, 16);
  check({.in = {6, 8, 10}, .in_channels = 12, .out_channels = 6, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, 6);
  check({.in = {6, 8, 10}, .in_channels = 12, .out_channels = 6}, 6);
  check({.batch = 2, .in = {1, 7, 33}, .in_channels = 35, .out_channels = 20, .stride = {1, 2, 2}}, 3);
  check({.batch = 3, .in = {5, 20, 70}, .in_channels = 16, .out_channels = 16, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, 8);
  // Slabs of channels, the second input beginning within one: all planes at once, and in slices.
  check({.batch = 2, .in = {4, 5, 6}, .in_channels = 288, .out_channels = 100, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, 100);
  check({.in = {1, 10, 9}, .in_channels = 4160, .out_channels = 40, .kernel = {1, 3, 3}, .pad = {0, 1, 1}}, 1000);
}

// Weights made ready once give the bits that plain ones give: forward and transposed, several gathers in one call, sums so
// deep that they are taken in parts, an input that is not finite. So they do alone, but that kernels of f32, which take over
// where a value is not finite, then find them as they are held.
TEST(DenseConv, KeptWeights) {
  const auto check = [](const ConvGeometry& g, bool finite) {
    Values x = random_values(size_x(g), 1), dy = random_values(size_y(g), 2);
    if (!finite) x[x.size() / 2] = dy[dy.size() / 2] = std::numeric_limits<float>::infinity();
    const Values w = random_values(size_w(g), 3);
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      for (const Precision precision : {Precision::strict, Precision::bf16x3, Precision::bf16}) {
        const bool tiles = has_amx(isa) && precision != Precision::strict;
        const auto forward = keep_conv_weights(g, w.data(), false, precision), transposed = keep_conv_weights(g, w.data(), true, precision);
        EXPECT_EQ(forward != nullptr, tiles) << describe(g);
        EXPECT_EQ(transposed != nullptr, tiles) << describe(g);
        Values y(static_cast<size_t>(size_y(g))), dx(static_cast<size_t>(size_x(g))), y_kept(y.size()), dx_kept(dx.size());
        conv_forward(g, in(x), in(w), {y.data(), DType::f32}, {}, precision);
        conv_forward(g, in(x), {w.data(), DType::f32, forward.get()}, {y_kept.data(), DType::f32}, {}, precision);
        EXPECT_EQ(std::memcmp(y.data(), y_kept.data(), y.size() * sizeof(float)), 0) << name(isa) << describe(g);
        conv_dgrad(g, in(dy), in(w), {dx.data(), DType::f32}, {}, precision);
        conv_dgrad(g, in(dy), {w.data(), DType::f32, transposed.get()}, {dx_kept.data(), DType::f32}, {}, precision);
        EXPECT_EQ(std::memcmp(dx.data(), dx_kept.data(), dx.size() * sizeof(float)), 0) << name(isa) << describe(g);
        if (!tiles) continue;
        const Values seen = finite ? w : held(w, precision);
        conv_forward(g, in(x), in(seen), {y.data(), DType::f32}, {}, precision);
        conv_forward(g, in(x), {nullptr, DType::f32, forward.get()}, {y_kept.data(), DType::f32}, {}, precision);
        EXPECT_EQ(std::memcmp(y.data(), y_kept.data(), y.size() * sizeof(float)), 0) << name(isa) << describe(g) << " alone";
        conv_dgrad(g, in(dy), in(seen), {dx.data(), DType::f32}, {}, precision);
        conv_dgrad(g, in(dy), {nullptr, DType::f32, transposed.get()}, {dx_kept.data(), DType::f32}, {}, precision);
        EXPECT_EQ(std::memcmp(dx.data(), dx_kept.data(), dx.size() * sizeof(float)), 0) << name(isa) << describe(g) << " alone";
      }
    }
  };
  for (const bool finite : {true, false}) {
    check({.in = {3, 9, 10}, .in_channels = 40, .out_channels = 36, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, finite);
    check({.batch = 2, .in = {4, 7, 20}, .in_channels = 32, .out_channels = 64, .kernel = {3, 3, 3}, .stride = {2, 2, 2}, .pad = {1, 1, 1}, .groups = 2}, finite);
    check({.in = {4, 8, 8}, .in_channels = 16, .out_channels = 24, .kernel = {2, 2, 2}, .stride = {2, 2, 2}}, finite);
    check({.in = {3, 4, 5}, .in_channels = 288, .out_channels = 288, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, finite);
    check({.in = {5, 9, 20}, .in_channels = 1, .out_channels = 20, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, finite);
  }
  Values w = random_values(27 * 16 * 16, 1);
  w[5] = std::nanf("");
  EXPECT_EQ(keep_conv_weights({.in = {4, 8, 8}, .in_channels = 16, .out_channels = 16, .kernel = {3, 3, 3}}, w.data(), false, Precision::bf16), nullptr);
}

// What bf16 promises of a kernel (docs/design/0003): the norm of the error over the result's, of factors that need rounding.
double bf16_bound(std::string_view kernel) {
  if (has(kernel, "bf16.winograd3")) return 5.5e-3;  // each side multiplies the error by the square root of 5 / 3
  return has(kernel, "bf16.winograd") ? 4.2e-3 : 2.5e-3;
}

// B beyond the second-level cache: channels in slabs, also in slices of them; a panel's sum in parts.
TEST(DenseConv, DeepSumsOnTiles) {
  const ConvGeometry cases[] = {
      {.in = {1, 5, 26}, .in_channels = 2400, .out_channels = 49, .kernel = {1, 3, 3}, .pad = {0, 1, 1}},
      {.in = {1, 10, 9}, .in_channels = 4160, .out_channels = 40, .kernel = {1, 3, 3}, .pad = {0, 1, 1}},
      {.batch = 2, .in = {4, 5, 6}, .in_channels = 288, .out_channels = 100, .kernel = {3, 3, 3}, .pad = {1, 1, 1}},
      {.in = {6, 7, 9}, .in_channels = 288, .out_channels = 100, .kernel = {3, 3, 3}, .stride = {2, 2, 2}, .pad = {1, 1, 1}},
      {.in = {5, 7, 9}, .in_channels = 288, .out_channels = 100, .kernel = {3, 3, 3}, .pad = {2, 2, 2}, .dilation = {1, 2, 2}},
  };
  for (const ConvGeometry& g : cases) {
    const Values x = random_values(size_x(g), 1), w = random_values(size_w(g), 2), dy = random_values(size_y(g), 3);
    const Sums want = reference_forward(g, x, w), want_dx = reference_dgrad(g, dy, w);
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      for (const Precision precision : {Precision::bf16x3, Precision::bf16}) {
        Values y(static_cast<size_t>(size_y(g))), dx(static_cast<size_t>(size_x(g)));
        const auto forward = conv_forward(g, in(x), in(w), {y.data(), DType::f32}, {}, precision);
        const auto dgrad = conv_dgrad(g, in(dy), in(w), {dx.data(), DType::f32}, {}, precision);
        const bool half = precision == Precision::bf16;
        EXPECT_LT(relative_error(y, want), half ? bf16_bound(forward) : 1e-5) << forward << describe(g);
        EXPECT_LT(relative_error(dx, want_dx), half ? bf16_bound(dgrad) : 1e-5) << dgrad << describe(g);
      }
    }
  }
}

// bf16 in the places of f32 activations: what is read was rounded before and gives the same bits, what is written is
// rounded once. Weights, bias and residual stay f32.
TEST(DenseConv, Bf16Activations) {
  const auto check = [](const ConvGeometry& g, int64_t rest) {
    const Values x = rounded(random_values(size_x(g), 1)), dy = rounded(random_values(size_y(g), 2)), w = random_values(size_w(g), 3);
    const Values bias = random_values(g.out_channels, 4), residual = random_values(size_y(g), 5);
    const Epilogue epilogue = {.bias = bias.data(), .residual = residual.data(), .activation = Activation::leaky_relu, .slope = 0.1F};
    const auto xh = halves(x), dyh = halves(dy);
    const int64_t positions = size_x(g) / g.in_channels, first = g.in_channels - rest;
    std::vector<uint16_t> a, b;
    for (int64_t i = 0; i < positions; ++i) {
      const auto row = xh.begin() + i * g.in_channels;
      a.insert(a.end(), row, row + first);
      b.insert(b.end(), row + first, row + g.in_channels);
    }
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      const bool tiles = has_amx(isa);
      EXPECT_EQ(takes_bf16(g, false, Precision::bf16), tiles);
      EXPECT_EQ(takes_bf16(g, true, Precision::bf16), tiles);
      EXPECT_FALSE(takes_bf16(g, false, Precision::bf16x3));
      if (!tiles) continue;
      Values y(static_cast<size_t>(size_y(g))), dx(static_cast<size_t>(size_x(g))), wide(y.size());
      std::vector<uint16_t> y_half(y.size()), dx_half(dx.size());
      conv_forward(g, in(x), in(w), {y.data(), DType::f32}, epilogue, Precision::bf16);
      conv_forward(g, {xh.data(), DType::bf16}, in(w), {y_half.data(), DType::bf16}, epilogue, Precision::bf16);
      EXPECT_EQ(y_half, halves(rounded(y))) << name(isa) << describe(g);
      conv_forward(g, {xh.data(), DType::bf16}, in(w), {wide.data(), DType::f32}, epilogue, Precision::bf16);
      EXPECT_EQ(wide, y) << name(isa) << describe(g);
      EXPECT_TRUE(conv_forward_on_tiles(g, {a.data(), DType::bf16}, {.second = {{b.data(), DType::bf16}, rest}}, in(w),
                                        {wide.data(), DType::f32}, epilogue, Precision::bf16));
      EXPECT_EQ(wide, y) << name(isa) << describe(g);
      conv_dgrad(g, in(dy), in(w), {dx.data(), DType::f32}, {}, Precision::bf16);
      conv_dgrad(g, {dyh.data(), DType::bf16}, in(w), {dx_half.data(), DType::bf16}, {}, Precision::bf16);
      EXPECT_EQ(dx_half, halves(rounded(dx))) << name(isa) << describe(g);
      // A residual of either type, also where the convolution falls back (an infinity is left to the f32 kernels).
      const Values added = rounded(random_values(size_x(g), 6));
      const auto added_half = halves(added);
      for (const bool finite : {true, false}) {
        Values from = dy, wide_dx(dx.size());
        if (!finite) from[0] = std::numeric_limits<float>::infinity();
        conv_dgrad(g, in(from), in(w), {dx.data(), DType::f32}, {.residual = added.data()}, Precision::bf16);
        conv_dgrad(g, in(from), in(w), {wide_dx.data(), DType::f32}, {.residual_bf16 = added_half.data()}, Precision::bf16);
        EXPECT_EQ(0, std::memcmp(wide_dx.data(), dx.data(), dx.size() * sizeof(float))) << name(isa) << describe(g);
      }
    }
  };
  check({.in = {3, 9, 10}, .in_channels = 40, .out_channels = 36, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, 16);
  check({.batch = 2, .in = {1, 7, 33}, .in_channels = 35, .out_channels = 20, .stride = {1, 2, 2}}, 3);
}

TEST(DenseConv, Bf16StaysBelowItsBound) {
  const auto check = [](const ConvGeometry& g) {
    const Values x = random_values(size_x(g), 1), w = random_values(size_w(g), 2), dy = random_values(size_y(g), 3);
    const Sums y_want = reference_forward(g, x, w), dx_want = reference_dgrad(g, dy, w);
    const Sums dw_want = reference_wgrad(g, x, dy);
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      Values y(static_cast<size_t>(size_y(g))), dx(static_cast<size_t>(size_x(g)));
      const auto forward = conv_forward(g, in(x), in(w), {y.data(), DType::f32}, {}, Precision::bf16);
      const auto dgrad = conv_dgrad(g, in(dy), in(w), {dx.data(), DType::f32}, {}, Precision::bf16);
      for (const auto& [error, used] : {std::pair{relative_error(y, y_want), forward}, {relative_error(dx, dx_want), dgrad}}) {
        EXPECT_LT(error, bf16_bound(used)) << used;
        EXPECT_GT(error, 1e-3) << used;  // bf16 ran
      }
      Values dw(static_cast<size_t>(size_w(g)));
      const auto wgrad = conv_wgrad(g, in(x), in(dy), {dw.data(), DType::f32}, Precision::bf16);
      EXPECT_LT(relative_error(dw, dw_want), has(wgrad, "bf16") ? bf16_bound(wgrad) : 1e-6) << wgrad;
    }
  };
  check({.in = {5, 24, 24}, .in_channels = 16, .out_channels = 16, .kernel = {3, 3, 3}, .pad = {1, 1, 1}});
  check({.in = {8, 32, 32}, .in_channels = 48, .out_channels = 48, .kernel = {3, 3, 3}, .pad = {1, 1, 1}});
  check({.in = {1, 12, 12}, .in_channels = 64, .out_channels = 32, .kernel = {1, 2, 2}, .stride = {1, 2, 2}});
}

TEST(DenseConv, SplitBf16RandomGeometries) {
  std::mt19937 rng(27);
  for (int i = 0; i < 60 && !testing::Test::HasFailure(); ++i) check_split(random_geometry(rng));
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

// Where all residues of a strided convolution's input are as many, they are groups of columns of one product on tiles: with
// taps that only some groups have, or none; several panels, two samples, depth blocks that end within a tap, slabs.
TEST(DenseConv, DataGradientsOfAllResiduesAtOnce) {
  using A = std::array<int64_t, 3>;
  const A two = {2, 2, 2}, three = {3, 3, 3}, one = {1, 1, 1};
  const std::vector<ConvGeometry> all = {
      {.batch = 2, .in = {4, 6, 8}, .in_channels = 32, .out_channels = 48, .kernel = three, .stride = two, .pad = one},
      {.in = {3, 8, 10}, .in_channels = 40, .out_channels = 64, .kernel = three, .stride = {1, 2, 2}, .pad = one},
      {.in = {1, 12, 54}, .in_channels = 20, .out_channels = 33, .kernel = {1, 3, 3}, .stride = {1, 2, 2}, .pad = {0, 1, 1}},
      {.in = {6, 6, 9}, .in_channels = 16, .out_channels = 16, .kernel = {5, 3, 4}, .stride = {2, 3, 3}, .pad = {2, 1, 2}},
      {.in = {4, 6, 8}, .in_channels = 16, .out_channels = 32, .kernel = {1, 1, 3}, .stride = two, .pad = {0, 0, 1}},
      {.in = {6, 8, 8}, .in_channels = 70, .out_channels = 32, .kernel = three, .stride = two, .pad = two, .dilation = two},
      {.in = {4, 4, 4}, .in_channels = 64, .out_channels = 1056, .kernel = three, .stride = two, .pad = one}};
  for (const ConvGeometry& g : all) {
    const Values w = rounded(random_values(size_w(g), 1)), dy = rounded(random_values(size_y(g), 2));
    const Values bias = random_values(g.in_channels, 3), residual = random_values(size_x(g), 4);
    Sums want = reference_dgrad(g, dy, w);
    for (size_t i = 0; i < want.value.size(); ++i) {
      want.value[i] += double{bias[i % static_cast<size_t>(g.in_channels)]} + residual[i];
      want.magnitude[i] += 2;
    }
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      for (const Precision precision : {Precision::strict, Precision::bf16x3, Precision::bf16}) {
        Values dx = guarded(size_x(g));
        const auto used = conv_dgrad(g, in(dy), in(w), {dx.data(), DType::f32}, {.bias = bias.data(), .residual = residual.data()}, precision);
        remove_guard(dx, std::string(used));
        expect_close(dx, want, product_limit(used), std::string(used) + " " + describe(g));
      }
    }
  }
}

// Outputs that are written past the caches, in whole lines or partly so: a kernel of 1 (f32 even on machines with tiles), patches
// of one line, of two and of one and a half, and strides.
TEST(DenseConv, DataGradientsLargerThanTheCaches) {
  const int threads = thread_count();
  set_thread_count(2);
  const int64_t planes = far_bytes() / (size_of(DType::bf16) * 16 * 16 * 32) / 2 * 2 + 2;
  using A = std::array<int64_t, 3>;
  const A one = {1, 1, 1}, two = {2, 2, 2}, three = {3, 3, 3}, extent = {planes, 16, 16};
  const std::vector<ConvGeometry> all = {
      {.in = extent, .in_channels = 32, .out_channels = 3},
      {.in = extent, .in_channels = 32, .out_channels = 20, .kernel = two, .stride = two},
      {.in = {planes, 16, 8}, .in_channels = 48, .out_channels = 20, .kernel = two, .stride = two},
      {.in = extent, .in_channels = 32, .out_channels = 9, .kernel = three, .stride = two, .pad = one}};
  for (const ConvGeometry& g : all) {
    const Values w = rounded(random_values(size_w(g), 1)), dy = rounded(random_values(size_y(g), 2));
    const Values residual = rounded(random_values(size_x(g), 3));
    const auto dyh = halves(dy), residual_h = halves(residual);
    const Sums plain = reference_dgrad(g, dy, w);
    Sums added = plain;
    for (size_t i = 0; i < added.value.size(); ++i) {
      added.value[i] += residual[i];
      added.magnitude[i] += 1;
    }
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      for (const bool sum : {false, true}) {
        const Sums& want = sum ? added : plain;
        Values memory(static_cast<size_t>(size_x(g) + 48), untouched);
        const size_t skip = (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64 / sizeof(float);
        float* const dx = memory.data() + skip;
        for (const Precision precision : {Precision::strict, Precision::bf16x3}) {
          const auto used = conv_dgrad(g, in(dy), in(w), {dx, DType::f32}, {.residual = sum ? residual.data() : nullptr}, precision);
          expect_close(Values(dx, dx + size_x(g)), want, product_limit(used), std::string(used) + " " + describe(g));
          ASSERT_EQ(dx[size_x(g)], untouched);
        }
        auto* const half = reinterpret_cast<uint16_t*>(dx);
        const auto used = conv_dgrad(g, {dyh.data(), DType::bf16}, in(w), {half, DType::bf16},
                                     {.residual_bf16 = sum ? residual_h.data() : nullptr}, Precision::bf16);
        Values got(static_cast<size_t>(size_x(g)));
        for (size_t i = 0; i < got.size(); ++i) got[i] = std::bit_cast<float>(static_cast<uint32_t>(half[i]) << 16);
        expect_close(got, want, 5e-3, std::string(used) + ", bf16, " + describe(g));
      }
    }
  }
  set_thread_count(threads);
}

// Factors that bf16 holds, so that every precision must give f32's sums: bias, residual and activation in all.
TEST(DenseConv, EpilogueInEveryPrecision) {
  for (const int64_t channels : {16, 24, 40}) {
    const ConvGeometry g = {.batch = 2,
                            .in = {3, 5, 11},
                            .in_channels = channels,
                            .out_channels = channels + 3,
                            .kernel = {3, 3, 3},
                            .pad = {1, 1, 1}};
    const Values x = rounded(random_values(size_x(g), 1));
    const Values w = rounded(random_values(size_w(g), 2));
    const Values bias = random_values(g.out_channels, 3), residual = random_values(size_y(g), 4);
    const auto xh = halves(x), wh = halves(w);
    Sums want = reference_forward(g, x, w);
    for (size_t i = 0; i < want.value.size(); ++i) {
      want.value[i] += double{bias[i % static_cast<size_t>(g.out_channels)]} + residual[i];
      if (want.value[i] < 0) want.value[i] *= 0.25;
      want.magnitude[i] += 2;
    }
    const Epilogue epilogue = {
        .bias = bias.data(), .residual = residual.data(), .activation = Activation::leaky_relu, .slope = 0.25F};
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      for (const Precision precision : {Precision::strict, Precision::bf16x3}) {
        Values y = guarded(size_y(g));
        conv_forward(g, in(x), in(w), {y.data(), DType::f32}, epilogue, precision);
        remove_guard(y, std::string(name(isa)));
        expect_close(y, want, f32_limit, std::string(name(isa)) + " f32 " + describe(g));
      }
      Values y = guarded(size_y(g));
      const auto used =
          conv_forward(g, {xh.data(), DType::bf16}, {wh.data(), DType::bf16}, {y.data(), DType::f32}, epilogue);
      remove_guard(y, std::string(name(isa)));
      expect_close(y, want, product_limit(used), std::string(used) + " " + describe(g));
    }
  }
}

// What bf16x3 promises: a relative error below 1e-5, forward and back, measured as the norm of the error.
TEST(DenseConv, SplitBf16StaysBelowItsBound) {
  const ConvGeometry g = {
      .in = {4, 8, 8}, .in_channels = 48, .out_channels = 48, .kernel = {3, 3, 3}, .pad = {1, 1, 1}};
  const Values x = random_values(size_x(g), 1), w = random_values(size_w(g), 2);
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    Values y(static_cast<size_t>(size_y(g)));
    conv_forward(g, in(x), in(w), {y.data(), DType::f32}, {}, Precision::bf16x3);
    const double forward = relative_error(y, reference_forward(g, x, w));
    conv_dgrad(g, in(x), in(w), {y.data(), DType::f32}, {}, Precision::bf16x3);
    const double backward = relative_error(y, reference_dgrad(g, x, w));
    for (const double error : {forward, backward}) {
      EXPECT_LT(error, 5e-6) << name(isa);
      EXPECT_EQ(error > 1e-6, has_amx(isa)) << name(isa) << " " << error;  // which ran
    }
  }
}

// Products of bf16 take denormals for zero.
TEST(DenseConv, Bf16ProductsFlushDenormals) {
  const ConvGeometry g = {.in = {1, 1, 40}, .in_channels = 32, .out_channels = 16};
  const Values x(static_cast<size_t>(size_x(g)), 0x1p-130F), w(static_cast<size_t>(size_w(g)), 1.0F);
  const auto xh = halves(x), wh = halves(w);
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    Values y(static_cast<size_t>(size_y(g)), untouched);
    conv_forward(g, {xh.data(), DType::bf16}, {wh.data(), DType::bf16}, {y.data(), DType::f32});
    for (const float value : y) EXPECT_EQ(value, multiplies_bf16(isa) ? 0 : 0x1p-125F) << name(isa);
  }
}

// Finite in f32 and not in bf16: the largest floats round up to infinity there.
TEST(DenseConv, LargestFloatsStayFinite) {
  const ConvGeometry g = {.in = {1, 4, 9}, .in_channels = 16, .out_channels = 16};
  const Values x(static_cast<size_t>(size_x(g)), std::numeric_limits<float>::max());
  const Values w(static_cast<size_t>(size_w(g)), 0x1p-10F);
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    Values y(static_cast<size_t>(size_y(g)));
    conv_forward(g, in(x), in(w), {y.data(), DType::f32}, {}, Precision::bf16x3);
    for (const float value : y) EXPECT_NEAR(value / 0x1p122F, 1, 1e-6) << name(isa);
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

// The same for weights and for bf16 factors, without a border.
TEST(DenseConv, NonFiniteFactorsInEveryPrecision) {
  const ConvGeometry g = {.in = {1, 6, 9}, .in_channels = 12, .out_channels = 20, .kernel = {1, 3, 3}};
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    for (const bool weight : {false, true}) {
      Values x = rounded(random_values(size_x(g), 1)), w = rounded(random_values(size_w(g), 2));
      (weight ? w : x)[437] = bad;
      const Sums want = reference_forward(g, x, w);
      const auto xh = halves(x), wh = halves(w);
      const auto check = [&](const Values& y, const std::string& what) {
        for (size_t i = 0; i < y.size(); ++i)
          ASSERT_EQ(std::isfinite(y[i]), std::isfinite(want.value[i])) << what << " element " << i;
      };
      for (const Isa isa : available_isas()) {
        const IsaScope scope(isa);
        Values y(static_cast<size_t>(size_y(g)));
        for (const Precision precision : {Precision::strict, Precision::bf16x3, Precision::bf16}) {
          conv_forward(g, in(x), in(w), {y.data(), DType::f32}, {}, precision);
          check(y, std::string(name(isa)) + " f32");
        }
        conv_forward(g, {xh.data(), DType::bf16}, {wh.data(), DType::bf16}, {y.data(), DType::f32});
        check(y, std::string(name(isa)) + " bf16");
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
