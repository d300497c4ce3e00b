// Dense kernels on the layer shapes of the five networks. Counters: GF/s of algorithmic flops (two
// a multiply-add) and GB/s of the operands read and written once.
#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "runtime/backend/cpu/dense/dense.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {
namespace {

using Triple = std::array<int64_t, 3>;

enum class Pass { forward, dgrad, wgrad };

int64_t volume(const Triple& t) { return t[0] * t[1] * t[2]; }

// As tensors lie: on whole cache lines.
template <class T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::align_val_t line{64};
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), line)); }
  void deallocate(T* p, size_t) { ::operator delete(p, line); }
  bool operator==(const LineAllocator&) const = default;
};
template <class T>
using Array = std::vector<T, LineAllocator<T>>;

Array<float> filled(int64_t n) {
  Array<float> v(static_cast<size_t>(n));
  std::mt19937 rng(1);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  for (float& x : v) x = uniform(rng);
  return v;
}

// The same values in the type under test.
struct Operand {
  Operand(int64_t n, DType type) : f32(filled(n)), dtype(type) {
    if (type == DType::f32) return;
    bf16.reserve(f32.size());
    for (const float x : f32) bf16.push_back(bfloat16(x).bits);
  }
  const void* data() const {
    return dtype == DType::f32 ? static_cast<const void*>(f32.data()) : bf16.data();
  }
  ConstBuffer in() const { return {data(), dtype}; }
  Buffer out() { return {const_cast<void*>(data()), dtype}; }
  Array<float> f32;
  Array<uint16_t> bf16;
  DType dtype;
};

void report(benchmark::State& state, double flops, double bytes, std::string_view implementation) {
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["GF/s"] = benchmark::Counter(flops * 1e-9, rate);
  state.counters["GB/s"] = benchmark::Counter(bytes * 1e-9, rate);
  state.SetLabel(std::string(implementation));
}

void run_conv(benchmark::State& state, const ConvGeometry& g, Pass pass, DType dtype,
              Precision precision) {
  const int64_t nx = g.batch * volume(g.in) * g.in_channels;
  const int64_t ny = g.batch * volume(g.out()) * g.out_channels;
  const int64_t nw = volume(g.kernel) * (g.in_channels / g.groups) * g.out_channels;
  Operand x(nx, dtype);
  Operand y(ny, dtype);
  Operand w(nw, dtype);
  std::string_view implementation;
  for (auto _ : state) {
    switch (pass) {
      case Pass::forward:
        implementation = conv_forward(g, x.in(), w.in(), y.out(), {}, precision);
        break;
      case Pass::dgrad:
        implementation = conv_dgrad(g, y.in(), w.in(), x.out(), {}, precision);
        break;
      case Pass::wgrad:
        implementation = conv_wgrad(g, x.in(), y.in(), w.out(), precision);
        break;
    }
    benchmark::ClobberMemory();
  }
  const double flops =
      2.0 * static_cast<double>(ny * volume(g.kernel) * (g.in_channels / g.groups));
  report(state, flops, static_cast<double>((nx + ny + nw) * size_of(dtype)), implementation);
}

void run_matmul(benchmark::State& state, const MatmulShape& s, int64_t na, int64_t nb, int64_t nc,
                DType dtype, Precision precision) {
  Operand a(na, dtype);
  Operand b(nb, dtype);
  Operand c(nc, dtype);
  std::string_view implementation;
  for (auto _ : state) {
    implementation = matmul(s, a.in(), b.in(), c.out(), {}, precision);
    benchmark::ClobberMemory();
  }
  const double batches = static_cast<double>(s.batch[0].size * s.batch[1].size * s.batch[2].size);
  const double flops = 2.0 * batches * static_cast<double>(s.m * s.n * s.k);
  report(state, flops, static_cast<double>((na + nb + nc) * size_of(dtype)), implementation);
}

struct Mode {
  const char* label;
  DType dtype;
  Precision precision;
};

constexpr std::array<Mode, 3> modes = {{{"f32", DType::f32, Precision::strict},
                                        {"bf16x3", DType::f32, Precision::bf16x3},
                                        {"bf16", DType::f32, Precision::bf16}}};

void add_conv(const std::string& name, const ConvGeometry& g, const std::vector<Pass>& passes) {
  constexpr std::array<const char*, 3> pass_names = {"forward", "dgrad", "wgrad"};
  for (const Mode& mode : modes) {
    for (const Pass pass : passes) {
      const std::string full =
          std::string(pass_names[static_cast<size_t>(pass)]) + "/" + name + "/" + mode.label;
      benchmark::RegisterBenchmark(full.c_str(), run_conv, g, pass, mode.dtype, mode.precision)
          ->Unit(benchmark::kMillisecond)
          ->UseRealTime();
    }
  }
}

void add_matmul(const std::string& name, const MatmulShape& s, int64_t na, int64_t nb, int64_t nc) {
  for (const Mode& mode : modes) {
    benchmark::RegisterBenchmark(("matmul/" + name + "/" + mode.label).c_str(), run_matmul, s, na,
                                 nb, nc, mode.dtype, mode.precision)
        ->Unit(benchmark::kMillisecond)
        ->UseRealTime();
  }
}

// `channels` to `out` with a cubic kernel that keeps the size.
ConvGeometry same(const Triple& in, int64_t channels, int64_t out, int64_t k = 3,
                  int64_t groups = 1) {
  return {.in = in,
          .in_channels = channels,
          .out_channels = out,
          .kernel = {k, k, k},
          .pad = {k / 2, k / 2, k / 2},
          .groups = groups};
}

ConvGeometry patch(const Triple& in, int64_t channels, int64_t out, const Triple& k) {
  return {.in = in, .in_channels = channels, .out_channels = out, .kernel = k, .stride = k};
}

void add_convolutions() {
  const std::vector<Pass> all = {Pass::forward, Pass::dgrad, Pass::wgrad};
  add_conv("k3_16-16_64x128x128", same({64, 128, 128}, 16, 16), all);
  add_conv("k3_1-16_64x128x128", same({64, 128, 128}, 1, 16), {Pass::forward, Pass::wgrad});
  add_conv("k1_16-14_64x128x128", same({64, 128, 128}, 16, 14, 1), all);
  add_conv("k1_32-3_128x128x128", same({128, 128, 128}, 32, 3, 1), all);
  add_conv("k1_64-32_64x64x64", same({64, 64, 64}, 64, 32, 1), all);
  add_conv("k3_32-32_32x32x32", same({32, 32, 32}, 32, 32), all);
  add_conv("k3_64-64_16x16x16", same({16, 16, 16}, 64, 64), all);
  add_conv("k3_128-128_8x8x8", same({8, 8, 8}, 128, 128), all);
  add_conv("k3_256-256_4x4x4", same({4, 4, 4}, 256, 256), all);
  add_conv("k3_48-48_96x96x96", same({96, 96, 96}, 48, 48), all);
  add_conv("k3_96-96_48x48x48", same({48, 48, 48}, 96, 96), all);
  add_conv("k3_64-64_64x64x64", same({64, 64, 64}, 64, 64), all);
  add_conv("k3_128-128_32x32x32", same({32, 32, 32}, 128, 128), all);
  add_conv("k3_320-320_8x8x8", same({8, 8, 8}, 320, 320), all);
  add_conv("k3_4-32_128x128x128", same({128, 128, 128}, 4, 32), {Pass::forward, Pass::wgrad});
  ConvGeometry strided = same({128, 128, 128}, 32, 64);
  strided.stride = {2, 2, 2};
  add_conv("k3s2_32-64_128x128x128", strided, all);
  ConvGeometry stem = same({96, 96, 96}, 1, 48, 7);
  stem.stride = {2, 2, 2};
  add_conv("k7s2_1-48_96x96x96", stem, {Pass::forward, Pass::wgrad});
  add_conv("patch_1-32_64x128x128", patch({64, 128, 128}, 1, 32, {2, 4, 4}),
           {Pass::forward, Pass::wgrad});
  add_conv("patch_16-32_64x128x128", patch({64, 128, 128}, 16, 32, {2, 4, 4}), all);
  add_conv("k2s2_32-64_128x128x128", patch({128, 128, 128}, 32, 64, {2, 2, 2}), all);
  add_conv("dw7_48_48x48x48", same({48, 48, 48}, 48, 48, 7, 48), all);
  add_conv("dw7_96_24x24x24", same({24, 24, 24}, 96, 96, 7, 96), all);
  add_conv("dw7_192_12x12x12", same({12, 12, 12}, 192, 192, 7, 192), all);
  add_conv("dw7_384_6x6x6", same({6, 6, 6}, 384, 384, 7, 384), all);
  ConvGeometry flat = {.in = {1, 56, 56},
                       .in_channels = 128,
                       .out_channels = 128,
                       .kernel = {1, 3, 3},
                       .pad = {0, 1, 1},
                       .groups = 128};
  add_conv("dw3_128_56x56", flat, all);
  add_conv("k1_g48_48-192_48x48x48", same({48, 48, 48}, 48, 192, 1, 48), all);
  add_conv("k1_g48_192-48_48x48x48", same({48, 48, 48}, 192, 48, 1, 48), all);
  ConvGeometry levit = {.in = {1, 112, 112},
                        .in_channels = 48,
                        .out_channels = 96,
                        .kernel = {1, 3, 3},
                        .stride = {1, 2, 2},
                        .pad = {0, 1, 1}};
  add_conv("k3s2_48-96_112x112", levit, all);
  for (const auto& [size, in, out] : {Triple{28, 2048, 512}, Triple{28, 1024, 1024}, Triple{56, 512, 512}, Triple{14, 1024, 1024}})
    add_conv("k3_" + std::to_string(in) + "-" + std::to_string(out) + "_" + std::to_string(size) + "x" + std::to_string(size),
             {.in = {1, size, size}, .in_channels = in, .out_channels = out, .kernel = {1, 3, 3}, .pad = {0, 1, 1}}, all);
}

void add_products() {
  const auto plain = [](int64_t m, int64_t k, int64_t n) {
    const MatmulShape s = {.m = m, .n = n, .k = k, .a = {k, 1}, .b = {n, 1}, .c = {n, 1}};
    add_matmul(std::to_string(m) + "x" + std::to_string(k) + "x" + std::to_string(n), s, m * k,
               k * n, m * n);
  };
  plain(1024, 1024, 1024);
  plain(32768, 32, 128);
  plain(32768, 32, 16);
  // A linear layer and its gradients by input and by weight.
  const auto layer = [&](int64_t rows, int64_t in, int64_t out) {
    plain(rows, in, out);
    const std::string name = std::to_string(rows) + "x" + std::to_string(in) + "x" + std::to_string(out);
    add_matmul("dgrad_" + name, {.m = rows, .n = in, .k = out, .a = {out, 1}, .b = {1, out}, .c = {in, 1}}, rows * out, in * out,
               rows * in);
    add_matmul("wgrad_" + name, {.m = in, .n = out, .k = rows, .a = {1, in}, .b = {out, 1}, .c = {out, 1}}, rows * in,
               rows * out, in * out);
  };
  layer(64, 32768, 64);  // UNETR++'s projection of tokens
  // Its layer of query, key and values, whose result is turned; and its gradients.
  add_matmul("turned_32768x32x128", {.m = 128, .n = 32768, .k = 32, .a = {1, 128}, .b = {1, 32}, .c = {32768, 1}}, 32 * 128,
             32768 * 32, 32768 * 128);
  add_matmul("dgrad_turned_32768x32x128", {.m = 32768, .n = 32, .k = 128, .a = {1, 32768}, .b = {1, 128}, .c = {32, 1}},
             32768 * 128, 32 * 128, 32768 * 32);
  add_matmul("wgrad_turned_32768x32x128", {.m = 32, .n = 128, .k = 32768, .a = {1, 32}, .b = {1, 32768}, .c = {128, 1}},
             32768 * 32, 32768 * 128, 32 * 128);
  for (const auto& [rows, width] : {std::pair(392, 384), {98, 512}, {32, 768}}) layer(rows, width, 2 * width);  // LeViT, two samples
  layer(3136, 128, 512);
  layer(784, 320, 1280);
  layer(784, 1280, 320);
  layer(196, 512, 2048);
  constexpr int64_t tokens = 32768;
  constexpr int64_t heads = 4;
  constexpr int64_t size = 8;
  constexpr int64_t row = heads * size;
  constexpr int64_t rank = 64;
  MatmulShape channel = {
      .m = size, .n = size, .k = tokens, .a = {1, row}, .b = {row, 1}, .c = {size, 1}};
  channel.batch[0] = {heads, size, size, size * size};
  add_matmul("epa_qTk", channel, tokens * row, tokens * row, heads * size * size);
  MatmulShape project = {
      .m = row, .n = rank, .k = tokens, .a = {1, row}, .b = {rank, 1}, .c = {rank, 1}};
  add_matmul("epa_kTE", project, tokens * row, tokens * rank, row * rank);
  MatmulShape scores = {
      .m = tokens, .n = rank, .k = size, .a = {row, 1}, .b = {rank, 1}, .c = {rank, 1}};
  scores.batch[0] = {heads, size, size * rank, tokens * rank};
  add_matmul("epa_q.kp", scores, tokens * row, row * rank, heads * tokens * rank);
  MatmulShape mix = {
      .m = tokens, .n = size, .k = rank, .a = {rank, 1}, .b = {1, rank}, .c = {row, 1}};
  mix.batch[0] = {heads, tokens * rank, size * rank, size};
  add_matmul("epa_P.v", mix, heads * tokens * rank, row * rank, tokens * row);
  MatmulShape wgrad = {.m = 32, .n = 128, .k = tokens, .a = {1, 32}, .b = {128, 1}, .c = {128, 1}};
  add_matmul("linear_wgrad_32x32768x128", wgrad, tokens * 32, tokens * 128, 32 * 128);
  MatmulShape dgrad = {.m = tokens, .n = 32, .k = 128, .a = {128, 1}, .b = {1, 128}, .c = {32, 1}};
  add_matmul("linear_dgrad_32768x128x32", dgrad, tokens * 128, 32 * 128, tokens * 32);
  MatmulShape attention = {.m = 196, .n = 196, .k = 32, .a = {32, 1}, .b = {1, 32}, .c = {196, 1}};
  attention.batch[0] = {12, 196 * 32, 196 * 32, 196 * 196};
  add_matmul("levit_12x196x32x196", attention, 12 * 196 * 32, 12 * 196 * 32, 12 * 196 * 196);
}

}  // namespace
}  // namespace voxlab::cpu

int main(int argc, char** argv) {
  voxlab::cpu::add_convolutions();
  voxlab::cpu::add_products();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("threads", std::to_string(voxlab::thread_count()));
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
