// Reused buffers, cache size and kernel choice for the dense drivers.
#include "runtime/backend/cpu/dense/scratch.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <new>
#include <numeric>

#include "runtime/backend/cpu/dense/kernels_amx.h"
#include "runtime/core/parallel.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace voxlab::cpu {
namespace {

constexpr size_t huge_page = size_t{2} << 20;

struct Free {
  void operator()(float* p) const { std::free(p); }
};

struct ScratchBuffer {
  std::unique_ptr<float, Free> data;
  int64_t floats = 0;
};

// Large buffers are aligned to and advised as 2 MiB pages: page faults of a fresh buffer otherwise
// cost more than the convolution that fills it.
float* allocate(int64_t floats) {
  const size_t wanted = static_cast<size_t>(floats) * sizeof(float);
  const size_t alignment = wanted >= huge_page ? huge_page : 64;
  const size_t bytes = (wanted + alignment - 1) / alignment * alignment;
  void* p = std::aligned_alloc(alignment, bytes);
  if (p == nullptr) throw std::bad_alloc();
#if defined(__linux__)
  if (alignment == huge_page) madvise(p, bytes, MADV_HUGEPAGE);
#endif
  return static_cast<float*>(p);
}

}  // namespace

float* scratch(Purpose purpose, int64_t floats) {
  thread_local std::array<ScratchBuffer, static_cast<size_t>(Purpose::count)> buffers;
  ScratchBuffer& buffer = buffers[static_cast<size_t>(purpose)];
  if (floats > buffer.floats || buffer.data == nullptr) {
    buffer.data.reset();
    buffer.floats = 0;
    buffer.data.reset(allocate(floats > 0 ? floats : 1));
    buffer.floats = floats;
  }
  return buffer.data.get();
}

int64_t l2_bytes() {
  static const int64_t bytes = [] {
    constexpr int64_t guess = int64_t{1} << 20;
#if defined(_SC_LEVEL2_CACHE_SIZE)
    const long reported = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return reported > 0 ? static_cast<int64_t>(reported) : guess;
#else
    return guess;
#endif
  }();
  return bytes;
}

int64_t lines_kept(int64_t pitch) {
  constexpr int64_t sets = 64;
  return l1_ways * sets / (pitch % line_floats == 0 ? std::gcd(pitch / line_floats, sets) : 1);
}

int64_t far_bytes() { return 4 * thread_count() * l2_bytes(); }

const KernelTable& active_kernels() {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::plain:
      return kernels_plain;
    case Isa::avx2:
      return kernels_avx2;
    case Isa::avx512:
    case Isa::avx512_bf16:
    case Isa::amx_emulated:
    case Isa::amx:
      return kernels_avx512;
  }
#endif
  return kernels_plain;
}

const PairTable* active_pairs() {
#if defined(__x86_64__)
  if (active_isa() == Isa::avx512_bf16) return &pairs_avx512_bf16;
#endif
  return nullptr;
}

std::string_view kernel_name(KernelKind kind, bool bf16) {
  // [kind][level][bf16]; bf16 without kernels of its own is widened to f32 first.
  constexpr std::array<std::array<std::array<std::string_view, 2>, 3>, 6> names = {{
      {{{"cpu.conv.plain", "cpu.conv.plain.widened"},
        {"cpu.conv.avx2.fma", "cpu.conv.avx2.widened"},
        {"cpu.conv.avx512.fma", "cpu.conv.avx512.widened"}}},
      {{{"cpu.dwconv.plain", "cpu.dwconv.plain.widened"},
        {"cpu.dwconv.avx2", "cpu.dwconv.avx2.widened"},
        {"cpu.dwconv.avx512", "cpu.dwconv.avx512.widened"}}},
      {{{"cpu.chscale.plain", "cpu.chscale.plain.widened"},
        {"cpu.chscale.avx2", "cpu.chscale.avx2.widened"},
        {"cpu.chscale.avx512", "cpu.chscale.avx512.widened"}}},
      {{{"cpu.matmul.plain", "cpu.matmul.plain.widened"},
        {"cpu.matmul.avx2.fma", "cpu.matmul.avx2.widened"},
        {"cpu.matmul.avx512.fma", "cpu.matmul.avx512.widened"}}},
      {{{"cpu.conv.plain.winograd", "cpu.conv.plain.winograd.widened"},
        {"cpu.conv.avx2.winograd", "cpu.conv.avx2.winograd.widened"},
        {"cpu.conv.avx512.winograd", "cpu.conv.avx512.winograd.widened"}}},
      {{{"cpu.conv.plain.winograd3", "cpu.conv.plain.winograd3.widened"},
        {"cpu.conv.avx2.winograd3", "cpu.conv.avx2.winograd3.widened"},
        {"cpu.conv.avx512.winograd3", "cpu.conv.avx512.winograd3.widened"}}},
  }};
  const Isa isa = std::min(active_isa(), Isa::avx512);
  return names[static_cast<size_t>(kind)][static_cast<size_t>(isa)][bf16 ? 1 : 0];
}

std::string_view amx_name(KernelKind kind, bool split) {
  if (active_isa() == Isa::avx512_bf16) {
    if (kind == KernelKind::matmul) return "cpu.matmul.avx512_bf16";
    if (kind == KernelKind::winograd) return "cpu.conv.avx512_bf16.winograd";
    return kind == KernelKind::winograd3 ? "cpu.conv.avx512_bf16.winograd3" : "cpu.conv.avx512_bf16";
  }
  // [matmul][emulated][split]
  constexpr std::string_view names[2][2][2] = {
      {{"cpu.conv.amx.bf16", "cpu.conv.amx.bf16x3"},
       {"cpu.conv.amx-emulated.bf16", "cpu.conv.amx-emulated.bf16x3"}},
      {{"cpu.matmul.amx.bf16", "cpu.matmul.amx.bf16x3"},
       {"cpu.matmul.amx-emulated.bf16", "cpu.matmul.amx-emulated.bf16x3"}},
  };
  return names[kind == KernelKind::matmul][active_isa() == Isa::amx_emulated][split];
}

#if defined(__x86_64__)
const AmxTable& active_amx() {
  if (active_isa() == Isa::avx512_bf16) return kernels_avx512_bf16;
  return active_isa() == Isa::amx_emulated ? kernels_amx_emulated : kernels_amx;
}
#endif

}  // namespace voxlab::cpu
