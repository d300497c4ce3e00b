// Convolutions on tiles, of AMX or emulated: weight gradients, inputs in two parts, what they do on the way, constant weights.
#include "tests/backend/dense_conv_support.h"

namespace voxlab::cpu {
namespace {

// Weight gradients of bf16 x and dy, in any of their places: the bits of the same values in f32.
void check_halves(const ConvGeometry& g) {
  const Values x = rounded(random_values(size_x(g), 1)), dy = rounded(random_values(size_y(g), 2));
  const auto xh = halves(x), dyh = halves(dy);
  const ConstBuffer from[] = {in(x), {xh.data(), DType::bf16}}, of[] = {in(dy), {dyh.data(), DType::bf16}};
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    const bool takes = multiplies_bf16(isa);
    const std::string kernel = "cpu.conv." + std::string(name(isa)) + (has_amx(isa) ? ".bf16" : "");
    EXPECT_EQ(wgrad_takes_bf16(g, Precision::bf16), takes) << describe(g);
    EXPECT_FALSE(wgrad_takes_bf16(g, Precision::bf16x3));
    if (!takes) continue;
    Values expected(static_cast<size_t>(size_w(g)));
    conv_wgrad(g, from[0], of[0], {expected.data(), DType::f32}, Precision::bf16);
    for (const int types : {1, 2, 3}) {
      Values dw(expected.size());
      const auto used = conv_wgrad(g, from[types & 1], of[types >> 1], {dw.data(), DType::f32}, Precision::bf16);
      EXPECT_TRUE(used == kernel || used == kernel + ".winograd") << used;
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

// What tiles and minimal filtering do on the way gives what passes of their own give: an input in two parts the bits of the
// joined one, a normalised input those of one that was normalised before, and the moments of the output as it is stored.
TEST(DenseConv, ExtrasOnTheWay) {
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
    const auto normalise = [&](bool fused) {
      Values y(x.size());
      for (size_t i = 0; i < x.size(); ++i) {
        const size_t c = i / static_cast<size_t>(positions / g.batch * channels) * static_cast<size_t>(channels) + i % static_cast<size_t>(channels);
        const float off = x[i] - mean[c], product = off * scale[c];
        const float v = fused ? std::fma(off, scale[c], shift[c]) : product + shift[c];
        y[i] = v < 0 ? 0.25F * v : v;
      }
      return y;
    };
    const InputNorm norm = {mean.data(), scale.data(), shift.data(), Activation::leaky_relu, 0.25F};
    const Epilogue epilogue = {.bias = bias.data(), .activation = Activation::leaky_relu, .slope = 0.5F};
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      for (const Precision precision : {Precision::strict, Precision::bf16x3, Precision::bf16}) {
        const ConvExtras both = {.second = {in(b), rest}}, normalised = {.norm = &norm};
        const std::string_view plain = conv_forward(g, {}, {}, {}, epilogue, precision);
        const bool filtered = has(plain, "winograd") && !has(plain, "widened");
        const bool tiles = (has_amx(isa) && precision != Precision::strict) || plain == "cpu.conv.avx512_bf16";
        const bool taken = tiles || filtered;
        for (const ConvExtras& extras : {both, normalised}) {
          ASSERT_EQ(takes_extras(g, DType::f32, extras, DType::f32, precision), taken ? plain : "") << name(isa) << describe(g);
          ASSERT_EQ(!takes_extras(g, DType::bf16, extras, DType::f32, precision).empty(), tiles || has(plain, "bf16.winograd"));
        }
        if (!taken) continue;
        Values want(static_cast<size_t>(size_y(g))), got(want.size()), moments(static_cast<size_t>(2 * g.batch * g.out_channels));
        conv_forward(g, in(x), in(w), {want.data(), DType::f32}, epilogue, precision);
        ASSERT_TRUE(conv_forward_with({.second = {in(b), rest}, .moments = moments.data()}, g, in(a), in(w), {got.data(), DType::f32}, epilogue, precision));
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
        const Values normal = normalise(isa != Isa::plain);
        conv_forward(g, in(normal), in(w), {want.data(), DType::f32}, epilogue, precision);
        ASSERT_TRUE(conv_forward_with(normalised, g, in(x), in(w), {got.data(), DType::f32}, epilogue, precision));
        EXPECT_EQ(std::memcmp(want.data(), got.data(), want.size() * sizeof(float)), 0) << name(isa) << describe(g);
        Values bad = x;
        bad[bad.size() / 2] = std::numeric_limits<float>::infinity();
        EXPECT_EQ(conv_forward_with(normalised, g, in(bad), in(w), {got.data(), DType::f32}, epilogue, precision), !tiles);
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
  // Minimal filtering of two and of three sides: odd sizes, several panels, channels that fill no vector.
  check({.batch = 2, .in = {7, 19, 33}, .in_channels = 20, .out_channels = 37, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, 4);
  check({.batch = 2, .in = {9, 31, 40}, .in_channels = 54, .out_channels = 66, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, 18);
  check({.in = {1, 45, 60}, .in_channels = 48, .out_channels = 16, .kernel = {1, 3, 3}, .pad = {0, 1, 1}}, 16);
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
      const bool takes = multiplies_bf16(isa);
      EXPECT_EQ(takes_bf16(g, false, Precision::bf16), takes);
      EXPECT_EQ(takes_bf16(g, true, Precision::bf16), takes);
      EXPECT_FALSE(takes_bf16(g, false, Precision::bf16x3));
      if (!takes) continue;
      Values y(static_cast<size_t>(size_y(g))), dx(static_cast<size_t>(size_x(g))), wide(y.size());
      std::vector<uint16_t> y_half(y.size()), dx_half(dx.size());
      conv_forward(g, in(x), in(w), {y.data(), DType::f32}, epilogue, Precision::bf16);
      conv_forward(g, {xh.data(), DType::bf16}, in(w), {y_half.data(), DType::bf16}, epilogue, Precision::bf16);
      EXPECT_EQ(y_half, halves(rounded(y))) << name(isa) << describe(g);
      conv_forward(g, {xh.data(), DType::bf16}, in(w), {wide.data(), DType::f32}, epilogue, Precision::bf16);
      EXPECT_EQ(wide, y) << name(isa) << describe(g);
      EXPECT_TRUE(conv_forward_with({.second = {{b.data(), DType::bf16}, rest}}, g, {a.data(), DType::bf16}, in(w),
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

}  // namespace
}  // namespace voxlab::cpu
