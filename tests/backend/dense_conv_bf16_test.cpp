// The same on products of bf16: of bf16 tensors, of f32 ones rounded, and three for each of f32.
#include "tests/backend/dense_conv_support.h"

namespace voxlab::cpu {
namespace {

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
  // One vector of columns: two pairs of channels a step, one where channels are no fours; sums in parts.
  check({.in = {5, 23, 25}, .in_channels = 18, .out_channels = 13, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, "winograd");
  check({.in = {4, 10, 10}, .in_channels = 1044, .out_channels = 16, .kernel = {2, 3, 3}, .pad = {1, 1, 1}}, "winograd");
  // All columns at one point before the next.
  check({.in = {1, 11, 14}, .in_channels = 4096, .out_channels = 72, .kernel = {1, 3, 3}, .pad = {0, 1, 1}}, "winograd");
  check({.in = {4, 14, 16}, .in_channels = 192, .out_channels = 160, .kernel = {3, 3, 3}, .pad = {2, 1, 1}, .groups = 2},
        "winograd3");
}

// Minimal filtering on bf16 takes tensors of either type: what it reads gives the bits that the same values give in f32, and
// what it writes is rounded once.
TEST(DenseConv, FilteredTensorsOfEitherType) {
  const auto& isas = available_isas();
  if (std::find(isas.begin(), isas.end(), Isa::avx512_bf16) == isas.end()) GTEST_SKIP() << "no AVX512_BF16";
  const IsaScope scope(Isa::avx512_bf16);
  struct Typed {
    Values wide;
    std::vector<uint16_t> narrow;
    explicit Typed(const Values& v) : wide(rounded(v)), narrow(halves(v)) {}
    ConstBuffer as(bool bf16) const { return bf16 ? ConstBuffer{narrow.data(), DType::bf16} : in(wide); }
  };
  // `run` writes to what it is given; as f32, and rounded, that is `want`.
  const auto expect_both = [](const Values& want, const std::string& what, const auto& run) {
    Values wide(want.size());
    std::vector<uint16_t> narrow(want.size());
    run(Buffer{wide.data(), DType::f32});
    run(Buffer{narrow.data(), DType::bf16});
    EXPECT_EQ(wide, want) << what;
    EXPECT_EQ(narrow, halves(want)) << what;
  };
  const auto check = [&](const ConvGeometry& g, int64_t rest, std::string_view form) {
    SCOPED_TRACE(describe(g));
    ASSERT_TRUE(takes_bf16(g, false, Precision::bf16) && takes_bf16(g, true, Precision::bf16) && wgrad_takes_bf16(g, Precision::bf16));
    ASSERT_EQ(conv_forward(g, {}, {}, {}, {}, Precision::bf16), "cpu.conv.avx512_bf16." + std::string(form));
    const Typed x(random_values(size_x(g), 1)), dy(random_values(size_y(g), 2)), to_y(random_values(size_y(g), 3)), to_x(random_values(size_x(g), 4));
    const Values w = random_values(size_w(g), 5), bias = random_values(g.out_channels, 6);
    const auto epilogue = [&](const Typed& residual, bool bf16, const float* b) {
      return Epilogue{.bias = b, .residual = bf16 ? nullptr : residual.wide.data(), .residual_bf16 = bf16 ? residual.narrow.data() : nullptr,
                      .activation = Activation::leaky_relu};
    };
    Values y(to_y.wide.size()), dx(to_x.wide.size()), dw(w.size());
    conv_forward(g, x.as(false), in(w), {y.data(), DType::f32}, epilogue(to_y, false, bias.data()), Precision::bf16);
    conv_dgrad(g, dy.as(false), in(w), {dx.data(), DType::f32}, epilogue(to_x, false, nullptr), Precision::bf16);
    conv_wgrad(g, x.as(false), dy.as(false), {dw.data(), DType::f32}, Precision::bf16);
    for (const bool from : {false, true}) {
      for (const bool added : {false, true}) {
        const std::string what = std::string(from ? "of bf16" : "of f32") + (added ? ", bf16" : ", f32");
        expect_both(y, "forward " + what, [&](Buffer out) {
          conv_forward(g, x.as(from), in(w), out, epilogue(to_y, added, bias.data()), Precision::bf16);
        });
        expect_both(dx, "dgrad " + what, [&](Buffer out) {
          conv_dgrad(g, dy.as(from), in(w), out, epilogue(to_x, added, nullptr), Precision::bf16);
        });
        expect_both(dw, "wgrad " + what, [&](Buffer out) { conv_wgrad(g, x.as(from), dy.as(added), out, Precision::bf16); });
      }
    }
    // The input in two parts, normalised on its way, and the output's moments.
    const int64_t channels = g.in_channels, positions = size_x(g) / channels;
    Values first, last;
    for (int64_t i = 0; i < positions; ++i) {
      const auto row = x.wide.begin() + i * channels;
      first.insert(first.end(), row, row + channels - rest);
      last.insert(last.end(), row + channels - rest, row + channels);
    }
    const Typed a(first), b(last);
    const Values mean = random_values(g.batch * channels, 7), scale = random_values(g.batch * channels, 8), shift = random_values(g.batch * channels, 9);
    const InputNorm norm = {mean.data(), scale.data(), shift.data(), Activation::leaky_relu, 0.25F};
    Values moments(static_cast<size_t>(2 * g.batch * g.out_channels)), same(moments.size());
    const auto run = [&](const Typed& head, bool head_bf16, const Typed* tail, bool tail_bf16, Buffer out, Values& to) {
      const ConvExtras extras = {.second = tail == nullptr ? SecondInput{} : SecondInput{tail->as(tail_bf16), rest},
                                 .norm = tail == nullptr ? &norm : nullptr, .moments = to.data()};
      ASSERT_FALSE(takes_extras(g, head.as(head_bf16).dtype, extras, out.dtype, Precision::bf16).empty());
      ASSERT_TRUE(conv_forward_with(extras, g, head.as(head_bf16), in(w), out, {}, Precision::bf16));
    };
    for (const bool two : {false, true}) {
      const Typed& head = two ? a : x;
      const Typed* tail = two ? &b : nullptr;
      run(head, false, tail, false, {y.data(), DType::f32}, moments);
      for (const bool head_bf16 : {false, true}) {
        for (const bool tail_bf16 : {false, true}) {
          expect_both(y, two ? "two inputs" : "normalised", [&](Buffer out) { run(head, head_bf16, tail, tail_bf16, out, same); });
          EXPECT_EQ(same, moments);
        }
      }
    }
  };
  check({.batch = 2, .in = {3, 19, 33}, .in_channels = 16, .out_channels = 16, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, 4, "winograd");
  check({.in = {1, 31, 40}, .in_channels = 26, .out_channels = 37, .kernel = {1, 3, 3}, .pad = {0, 1, 0}}, 10, "winograd");
  check({.batch = 2, .in = {9, 21, 20}, .in_channels = 54, .out_channels = 66, .kernel = {3, 3, 3}, .pad = {1, 1, 1}}, 18, "winograd3");
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

TEST(DenseConv, SplitBf16RandomGeometries) {
  std::mt19937 rng(27);
  for (int i = 0; i < 60 && !testing::Test::HasFailure(); ++i) check_split(random_geometry(rng));
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

}  // namespace
}  // namespace voxlab::cpu
