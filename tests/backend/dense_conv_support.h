// What the tests of convolutions share: operands, limits, and checks against a naive f64 sum.
#pragma once

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

// f32 rounds each of up to a few thousand products; errors grow like the square root of their
// number.
inline constexpr double f32_limit = 2e-6;
inline constexpr float untouched = 12345.0F;

inline ConstBuffer in(const Values& v) { return {v.data(), DType::f32}; }

// The norm of the error over the result's.
inline double relative_error(const Values& got, const Sums& want) {
  double error = 0, size = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - want.value[i]) * (got[i] - want.value[i]);
    size += want.value[i] * want.value[i];
  }
  return std::sqrt(error / size);
}

// Outputs have a guard band behind them that must stay untouched.
inline Values guarded(int64_t n) { return Values(static_cast<size_t>(n) + 32, untouched); }

inline void remove_guard(Values& v, const std::string& what) {
  for (size_t i = v.size() - 32; i < v.size(); ++i) ASSERT_EQ(v[i], untouched) << what;
  v.resize(v.size() - 32);
}

inline ConvGeometry random_geometry(std::mt19937& rng) {
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

// bf16 inputs have exact products; only the f32 sums and, for bf16 outputs, the last rounding
// differ.
inline Values rounded(const Values& v) {
  Values r;
  for (const float x : v) r.push_back(static_cast<float>(bfloat16(x)));
  return r;
}

inline std::vector<uint16_t> halves(const Values& v) {
  std::vector<uint16_t> h;
  for (const float x : v) h.push_back(bfloat16(x).bits);
  return h;
}

inline Values widened(const std::vector<uint16_t>& h) {
  Values v;
  for (const uint16_t bits : h) v.push_back(std::bit_cast<float>(uint32_t{bits} << 16));
  return v;
}

inline bool has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// Minimal filtering on bf16 rounds its points, sums of factors, whose products then nearly cancel: a step of bf16 of the
// sum of magnitudes bounds what is left of it. Other products of bf16 are exact.
inline double product_limit(std::string_view used) { return has(used, "bf16.winograd") ? 1.0 / 256 : f32_limit; }

// Precision::bf16 on f32 tensors: as the name says, products of rounded factors, of rounded points, or of f32.
inline void check_rounding(const ConvGeometry& g) {
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
inline constexpr double split_limit = 0x1p-15 + f32_limit;

// All three passes of f32 tensors, on every instruction set.
inline void check_passes(const ConvGeometry& g, Precision precision, double limit) {
  const Values x = random_values(size_x(g), 1);
  const Values w = random_values(size_w(g), 2);
  const Values dy = random_values(size_y(g), 3);
  const Sums y_want = reference_forward(g, x, w);
  const Sums dx_want = reference_dgrad(g, dy, w);
  const Sums dw_want = reference_wgrad(g, x, dy);
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    const std::string what = std::string(name(isa)) + (precision == Precision::strict ? " " : " bf16x3 ") + describe(g);
    Values y = guarded(size_y(g));
    conv_forward(g, in(x), in(w), {y.data(), DType::f32}, {}, precision);
    remove_guard(y, what);
    expect_close(y, y_want, limit, "forward " + what);
    Values dx = guarded(size_x(g));
    conv_dgrad(g, in(dy), in(w), {dx.data(), DType::f32}, {}, precision);
    remove_guard(dx, what);
    expect_close(dx, dx_want, limit, "dgrad " + what);
    Values dw = guarded(size_w(g));
    conv_wgrad(g, in(x), in(dy), {dw.data(), DType::f32}, precision);
    remove_guard(dw, what);
    expect_close(dw, dw_want, limit, "wgrad " + what);
  }
}
inline void check_all_passes(const ConvGeometry& g) { check_passes(g, Precision::strict, f32_limit); }

// Values of the channels `of`, neighbours among `channels`.
inline Values sample(const Values& v, int64_t channels, const std::vector<int64_t>& of) {
  Values some;
  for (size_t at = 0; at < v.size(); at += static_cast<size_t>(channels))
    for (const int64_t c : of) some.push_back(v[at + static_cast<size_t>(c)]);
  return some;
}

// The same of many channels, of which some are looked at; not of groups. Forward and data gradient run on `kernel`.
inline void check_some_channels(const ConvGeometry& g, std::string_view kernel) {
  const Values x = random_values(size_x(g), 1), w = random_values(size_w(g), 2), dy = random_values(size_y(g), 3);
  const auto some_of = [](int64_t channels) {  // of every vector, and of every lane in turn
    std::vector<int64_t> some;
    for (int64_t c = 0; c < channels - 1; c += 15) some.push_back(c);
    some.push_back(channels - 1);
    return some;
  };
  const std::vector<int64_t> some_in = some_of(g.in_channels), some_out = some_of(g.out_channels);
  const auto some_rows = [&](const Values& of, int64_t columns) {  // of weights, by their input channel
    Values rows;
    for (int64_t tap = 0; tap < volume(g.kernel); ++tap) {
      for (const int64_t c : some_in) {
        const auto row = of.begin() + (tap * g.in_channels + c) * columns;
        rows.insert(rows.end(), row, row + columns);
      }
    }
    return rows;
  };
  ConvGeometry few_in = g, few_out = g, few = g;
  few_in.in_channels = few.in_channels = static_cast<int64_t>(some_in.size());
  few_out.out_channels = few.out_channels = static_cast<int64_t>(some_out.size());
  const Sums y_want = reference_forward(few_out, x, sample(w, g.out_channels, some_out));
  const Sums dx_want = reference_dgrad(few_in, dy, some_rows(w, g.out_channels));
  const Sums dw_want = reference_wgrad(few, sample(x, g.in_channels, some_in), sample(dy, g.out_channels, some_out));
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    const std::string what = " " + std::string(name(isa)) + " " + describe(g);
    Values y = guarded(size_y(g)), dx = guarded(size_x(g)), dw = guarded(size_w(g));
    const auto forward = conv_forward(g, in(x), in(w), {y.data(), DType::f32});
    const auto dgrad = conv_dgrad(g, in(dy), in(w), {dx.data(), DType::f32});
    const auto wgrad = conv_wgrad(g, in(x), in(dy), {dw.data(), DType::f32});
    EXPECT_TRUE(has(forward, kernel) && has(dgrad, kernel) && has(wgrad, "winograd")) << forward << " " << dgrad << " " << wgrad << what;
    for (Values* values : {&y, &dx, &dw}) remove_guard(*values, what);
    expect_close(sample(y, g.out_channels, some_out), y_want, f32_limit, "forward" + what);
    expect_close(sample(dx, g.in_channels, some_in), dx_want, f32_limit, "dgrad" + what);
    expect_close(sample(some_rows(dw, g.out_channels), g.out_channels, some_out), dw_want, f32_limit, "wgrad" + what);
  }
}

inline void check_split(const ConvGeometry& g) { check_passes(g, Precision::bf16x3, split_limit); }

// What bf16 promises of a kernel (docs/design/0003): the norm of the error over the result's, of factors that need rounding.
inline double bf16_bound(std::string_view kernel) {
  if (has(kernel, "bf16.winograd3")) return 5.5e-3;  // each side multiplies the error by the square root of 5 / 3
  return has(kernel, "bf16.winograd") ? 4.2e-3 : 2.5e-3;
}

}  // namespace voxlab::cpu
