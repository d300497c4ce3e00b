// Run-time instruction set detection. Feature bits decide, never family or model numbers: virtual
// machines report models that do not match their features.
#include "runtime/backend/cpu/isa.h"

#include <array>
#include <atomic>
#include <cstdlib>
#include <string>
#include <utility>

#include "runtime/core/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace voxlab::cpu {
namespace {

constexpr std::array<std::pair<std::string_view, Isa>, 6> isa_names = {{
    {"plain", Isa::plain},
    {"avx2", Isa::avx2},
    {"avx512", Isa::avx512},
    {"avx512_bf16", Isa::avx512_bf16},
    {"amx-emulated", Isa::amx_emulated},
    {"amx", Isa::amx},
}};

constexpr int no_override = -1;
std::atomic<int> override_isa{no_override};

#if defined(__x86_64__)

constexpr uint64_t xcr0_ymm = 0x6;              // SSE and AVX state
constexpr uint64_t xcr0_zmm = xcr0_ymm | 0xe0;  // opmask and both ZMM halves
constexpr uint64_t xcr0_tiles = 0x60000;        // XTILECFG and XTILEDATA

bool has_bit(unsigned value, int bit) { return ((value >> bit) & 1U) != 0; }

uint64_t read_xcr0() {
  unsigned low = 0;
  unsigned high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// Linux gives a process the 8 KiB of tile state only on request (arch_prctl 0x1023, state 18).
bool amx_permitted() {
#if defined(__linux__)
  constexpr long request_permission = 0x1023;
  constexpr long tile_data_state = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data_state) == 0;
#else
  return false;
#endif
}

Isa detect() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return Isa::plain;
  const bool fma = has_bit(c, 12);
  const bool osxsave = has_bit(c, 27);
  const bool avx = has_bit(c, 28);
  const bool f16c = has_bit(c, 29);
  if (!osxsave || !avx || !fma || !f16c) return Isa::plain;
  const uint64_t xcr0 = read_xcr0();
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return Isa::plain;
  const unsigned features = b;
  const unsigned features_d = d;
  if (!has_bit(features, 5) || (xcr0 & xcr0_ymm) != xcr0_ymm) return Isa::plain;
  const bool avx512 = has_bit(features, 16) && has_bit(features, 17) && has_bit(features, 30) &&
                      has_bit(features, 31);  // F, DQ, BW, VL
  if (!avx512 || (xcr0 & xcr0_zmm) != xcr0_zmm) return Isa::avx2;
  const bool amx = has_bit(features_d, 22) && has_bit(features_d, 24);  // AMX-BF16, AMX-TILE
  const bool avx512_bf16 = __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && has_bit(a, 5);
  if (!avx512_bf16) return Isa::avx512;
  if (!amx) return Isa::avx512_bf16;
  // With AMX in the machine but not to be had, f32 is the faster of the vector products.
  return (xcr0 & xcr0_tiles) == xcr0_tiles && amx_permitted() ? Isa::amx : Isa::avx512;
}

#else

Isa detect() { return Isa::plain; }

#endif

Isa detected_isa() {
  static const Isa isa = detect();
  return isa;
}

// Levels from this one to amx_emulated are emulated, on machines with at least the other.
#if defined(VOXLAB_EMULATED_LEVELS)
constexpr Isa first_emulated = Isa::avx512, emulation_needs = Isa::avx2;
#else
constexpr Isa first_emulated = Isa::amx_emulated, emulation_needs = Isa::avx512;
#endif

bool can_run(Isa isa) {
  const bool emulated = isa >= first_emulated && isa <= Isa::amx_emulated;
  return detected_isa() >= (emulated ? emulation_needs : isa);
}

void require(Isa isa) {
  if (!can_run(isa)) {
    fail("instruction set", std::string(name(isa)) +
                                " was asked for, but this machine has at most " +
                                std::string(name(detected_isa())));
  }
}

Isa isa_from_environment() {
  const char* text = std::getenv("VOXLAB_ISA");
  if (text == nullptr || *text == '\0') return detected_isa();
  const Isa isa = parse_isa(text);
  require(isa);
  return isa;
}

}  // namespace

std::string_view name(Isa isa) { return isa_names[static_cast<size_t>(isa)].first; }

Isa parse_isa(std::string_view text) {
  for (const auto& [label, isa] : isa_names) {
    if (label == text) return isa;
  }
  fail("instruction set", "expected plain, avx2, avx512, avx512_bf16, amx-emulated or amx, got \"" + std::string(text) + "\"");
}

const std::vector<Isa>& available_isas() {
  static const std::vector<Isa> isas = [] {
    std::vector<Isa> found;
    for (const auto& [label, isa] : isa_names) {
      if (can_run(isa)) found.push_back(isa);
    }
    return found;
  }();
  return isas;
}

Isa active_isa() {
  const int forced = override_isa.load(std::memory_order_relaxed);
  if (forced != no_override) return static_cast<Isa>(forced);
  static const Isa isa = isa_from_environment();
  return isa;
}

IsaScope::IsaScope(Isa isa) : previous_(override_isa.load()) {
  require(isa);
  override_isa.store(static_cast<int>(isa));
}

IsaScope::~IsaScope() { override_isa.store(previous_); }

}  // namespace voxlab::cpu
