// Public entry points: argument checks, 16-bit types and the choice of kernel family.
#include "runtime/backend/cpu/dense/dense.h"

#include <algorithm>
#include <cstring>
#include <array>
#include <iterator>
#include <optional>
#include <string>

#include "runtime/backend/cpu/dense/passes.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/dense/weights_amx.h"
#include "runtime/core/error.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {
namespace {

constexpr int64_t convert_grain = 1 << 15;

void require_type(std::string_view where, DType dtype) {
  if (dtype != DType::f32 && dtype != DType::bf16) {
    fail(where, "expected f32 or bf16, got " + std::string(name(dtype)));
  }
}

void check(std::string_view where, const ConvGeometry& g) {
  if (g.groups < 1 || g.in_channels % g.groups != 0 || g.out_channels % g.groups != 0) {
    fail(where, "groups " + std::to_string(g.groups) + " must divide channels " +
                    std::to_string(g.in_channels) + " and " + std::to_string(g.out_channels));
  }
  const auto out = g.out();
  for (int i = 0; i < 3; ++i) {
    if (g.kernel[i] < 1 || g.stride[i] < 1 || g.dilation[i] < 1 || g.pad[i] < 0 || out[i] < 1) {
      fail(where, "kernel " + std::to_string(g.kernel[i]) + ", stride " +
                      std::to_string(g.stride[i]) + ", pad " + std::to_string(g.pad[i]) +
                      ", dilation " + std::to_string(g.dilation[i]) +
                      " give no output for input size " + std::to_string(g.in[i]));
    }
  }
}

// A machine that does not multiply bf16 rounds the factors first and multiplies them in f32.
bool rounds_first(Precision precision) { return precision == Precision::bf16 && !multiplies_bf16(active_isa()); }

// f32 view of an input; bf16 is widened into scratch, and f32 that must be `rounded` to bf16 is copied there.
const float* widened(const KernelTable& kernels, ConstBuffer in, int64_t n, Purpose purpose, bool rounded = false) {
  if (in.dtype == DType::f32 && !rounded) return static_cast<const float*>(in.data);
  float* out = scratch(purpose, n);
  if (in.dtype == DType::f32) {
    const auto* from = static_cast<const float*>(in.data);
    parallel_for(n, convert_grain, [&](int64_t begin, int64_t end) {
      std::array<uint16_t, 512> bits;
      for (int64_t i = begin; i < end; i += std::ssize(bits)) {
        const int64_t count = std::min<int64_t>(end - i, std::ssize(bits));
        kernels.narrow(from + i, count, bits.data());
        kernels.widen(bits.data(), count, out + i);
      }
    });
    return out;
  }
  const auto* bits = static_cast<const uint16_t*>(in.data);
  parallel_for(n, convert_grain, [&](int64_t begin, int64_t end) {
    kernels.widen(bits + begin, end - begin, out + begin);
  });
  return out;
}

// The same of weights; of those that are there as they were kept alone, nothing, for the kernels on tiles read no others.
const float* widened_weights(const KernelTable& kernels, ConstBuffer w, int64_t n, bool rounded = false) {
  return w.data == nullptr ? nullptr : widened(kernels, w, n, Purpose::input_b, rounded);
}
// For other kernels then.
const float* needed_weights(const float* f32, ConstBuffer w, int64_t n) {
  if (f32 != nullptr || w.kept == nullptr) return f32;
  float* out = scratch(Purpose::input_b, n);
  unpack_weights(*w.kept, n, out);
  return out;
}

float* f32_output(Buffer out, int64_t n) {
  return out.dtype == DType::f32 ? static_cast<float*>(out.data) : scratch(Purpose::output, n);
}

void narrow_output(const KernelTable& kernels, const float* from, int64_t n, Buffer out) {
  if (out.dtype == DType::f32) return;
  auto* bits = static_cast<uint16_t*>(out.data);
  parallel_for(n, convert_grain, [&](int64_t begin, int64_t end) {
    kernels.narrow(from + begin, end - begin, bits + begin);
  });
}

// Depthwise and channel-scaling kernels add no residual while they store: they compute value + bias, and what is left of
// the epilogue takes a pass of its own.
// An epilogue whose residual is f32, widened where it was not.
class WideEpilogue {
 public:
  WideEpilogue(const KernelTable& kernels, const Epilogue& epilogue, int64_t n) : epilogue_(epilogue) {
    if (epilogue.residual_bf16 == nullptr) return;
    epilogue_.residual = widened(kernels, {epilogue.residual_bf16, DType::bf16}, n, Purpose::residual);
    epilogue_.residual_bf16 = nullptr;
  }
  const Epilogue& operator*() const { return epilogue_; }

 private:
  Epilogue epilogue_;
};

class LateFinish {
 public:
  explicit LateFinish(const Epilogue& epilogue) : all_(epilogue), first_(epilogue) {
    if (epilogue.residual == nullptr) return;
    first_.residual = nullptr;
    first_.activation = Activation::none;
  }
  const Epilogue& first() const { return first_; }
  void apply(const KernelTable& kernels, Buffer out, int64_t n) const {
    if (all_.residual == nullptr) return;
    auto* y = static_cast<float*>(out.data);
    parallel_for(n, convert_grain, [&](int64_t begin, int64_t end) {
      kernels.finish(y + begin, all_.residual + begin, end - begin,
                     static_cast<int>(all_.activation), all_.slope);
    });
  }

 private:
  Epilogue all_, first_;
};

KernelKind conv_kind(const KernelTable& kernels, const ConvGeometry& g) {
  if (is_channel_scale(g)) return KernelKind::channel_scale;
  return is_depthwise(g, kernels.width) ? KernelKind::depthwise : KernelKind::conv;
}

struct ConvSizes {
  int64_t x;
  int64_t y;
  int64_t w;
};

ConvSizes sizes_of(const ConvGeometry& g) {
  return {g.batch * product(g.in) * g.in_channels, g.batch * product(g.out()) * g.out_channels,
          product(g.kernel) * (g.in_channels / g.groups) * g.out_channels};
}

// Below this many values in a run of K, which fill a quarter of a tile, f32 kernels are faster than three products, or than
// products of bf16 without tiles.
constexpr int64_t shortest_run = 8;

// Products of bf16 directly where they are asked for and pay; `run`: of K.
GatherMode direct_mode(DType input, Precision precision, int64_t run, int64_t shortest = shortest_run) {
  const Isa isa = active_isa();
  if (input == DType::bf16 || precision == Precision::bf16)
    return multiplies_bf16(isa) && (has_amx(isa) || run >= shortest) ? GatherMode::bf16 : GatherMode::f32;
  return precision == Precision::bf16x3 && has_amx(isa) && run >= shortest ? GatherMode::bf16x3 : GatherMode::f32;
}

// Kernels on pairs, where products of bf16 are asked for and there are no tiles.
const PairTable* pairs_for(DType input, Precision precision) {
  return input == DType::bf16 || precision == Precision::bf16 ? active_pairs() : nullptr;
}

// The mode of a convolution, and the one on f32 buffers that takes over where a value is not finite.
struct Modes {
  GatherMode chosen = GatherMode::f32;
  GatherMode on_f32 = GatherMode::f32;
};

using ModeOf = GatherMode (*)(const KernelTable&, const ConvGeometry&, const PairTable*);
Modes modes_of(const KernelTable& kernels, const ConvGeometry& g, ModeOf mode_of, DType input, Precision precision,
               int64_t run, int64_t shortest = shortest_run) {
  const GatherMode direct = direct_mode(input, precision, run, shortest);
  if (direct == GatherMode::f32) {
    const GatherMode f32 = mode_of(kernels, g, nullptr);
    return {f32, f32};
  }
  if (const PairTable* pairs = pairs_for(input, precision)) {
    const GatherMode filtered = mode_of(kernels, g, pairs);
    if (filtered != GatherMode::f32) return {filtered, filtered};
  }
  return {direct, mode_of(kernels, g, nullptr)};
}

bool is_direct_bf16(GatherMode mode) { return mode == GatherMode::bf16 || mode == GatherMode::bf16x3; }
bool on_pairs(GatherMode mode) { return mode == GatherMode::winograd_pairs || mode == GatherMode::winograd3_pairs; }
// Of f32 tensors and of bf16 ones alike.
bool on_bf16(GatherMode mode) { return is_direct_bf16(mode) || on_pairs(mode); }

// `widened`: f32 kernels on what was bf16, or was rounded to it.
std::string_view implementation(KernelKind kind, GatherMode mode, bool widened) {
  switch (mode) {
    case GatherMode::f32: return kernel_name(kind, widened);
    case GatherMode::winograd: return kernel_name(KernelKind::winograd, widened);
    case GatherMode::winograd3: return kernel_name(KernelKind::winograd3, widened);
    case GatherMode::winograd_pairs: return amx_name(KernelKind::winograd, false);
    case GatherMode::winograd3_pairs: return amx_name(KernelKind::winograd3, false);
    case GatherMode::bf16:
    case GatherMode::bf16x3: break;
  }
  return amx_name(kind, mode == GatherMode::bf16x3);
}

void require_types(std::string_view where, ConstBuffer a, ConstBuffer b, Buffer out) {
  require_type(where, a.dtype);
  require_type(where, b.dtype);
  require_type(where, out.dtype);
}

// Elements from the first to one past the last that a matrix product touches in each operand.
struct Extents {
  int64_t a = 1;
  int64_t b = 1;
  int64_t c = 1;
};

Extents extents_of(const MatmulShape& s) {
  if (s.m == 0 || s.n == 0) return {};
  const int64_t last_k = s.k > 0 ? s.k - 1 : 0;
  Extents e;
  e.a += (s.m - 1) * s.a.row + last_k * s.a.col;
  e.b += last_k * s.b.row + (s.n - 1) * s.b.col;
  e.c += (s.m - 1) * s.c.row + (s.n - 1) * s.c.col;
  for (const BatchAxis& axis : s.batch) {
    e.a += (axis.size - 1) * axis.a;
    e.b += (axis.size - 1) * axis.b;
    e.c += (axis.size - 1) * axis.c;
  }
  return e;
}

// Element by element: C may be a strided view whose gaps belong to somebody else.
void narrow_matrix(const KernelTable& kernels, const MatmulShape& s, const float* from, Buffer to) {
  auto* bits = static_cast<uint16_t*>(to.data);
  const int64_t matrices = s.batch[0].size * s.batch[1].size * s.batch[2].size;
  parallel_for(matrices * s.m, 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t at = i % s.m * s.c.row;
      int64_t batch = i / s.m;
      for (int axis = 2; axis >= 0; --axis) {
        const BatchAxis& b = s.batch[static_cast<size_t>(axis)];
        at += batch % b.size * b.c;
        batch /= b.size;
      }
      if (s.c.col == 1) {
        kernels.narrow(from + at, s.n, bits + at);
        continue;
      }
      for (int64_t n = 0; n < s.n; ++n)
        kernels.narrow(from + at + n * s.c.col, 1, bits + at + n * s.c.col);
    }
  });
}

// A^T B of compact matrices is the weight gradient of a 1x1 convolution whose positions are the rows of both.
std::optional<ConvGeometry> as_weight_gradient(const MatmulShape& s, GatherMode mode) {
  constexpr int64_t least_rows = 16;  // half a depth block of K
  const bool compact = s.a.row == 1 && s.a.col == s.m && s.b.col == 1 && s.b.row == s.n && s.c.col == 1 && s.c.row == s.n;
  for (const BatchAxis& axis : s.batch)
    if (axis.size != 1) return {};
  const ConvGeometry g = {.in = {1, 1, s.k}, .in_channels = s.m, .out_channels = s.n};
  // A's tiles are made for these few columns alone: f32 took 0.5 to 0.9 of the time (EPA's shared projection).
  const bool few = s.n <= 64 && (mode == GatherMode::bf16x3 || s.k <= 64);
  const bool suits = compact && s.k >= least_rows && !few && is_direct_bf16(mode) && has_amx(active_isa());
  return suits && suits_wgrad_amx(g, mode == GatherMode::bf16x3) ? std::optional(g) : std::nullopt;
}

}  // namespace

std::array<int64_t, 3> ConvGeometry::out() const {
  std::array<int64_t, 3> size;
  for (int i = 0; i < 3; ++i) {
    const int64_t room = in[i] + 2 * pad[i] - dilation[i] * (kernel[i] - 1) - 1;
    size[i] = room < 0 || stride[i] < 1 ? 0 : room / stride[i] + 1;
  }
  return size;
}

namespace {

// `extras`: tiles pay for shorter runs, since they save the passes that norms would make.
Modes forward_modes(const ConvGeometry& g, DType x, Precision precision, bool extras = false) {
  const KernelTable& kernels = active_kernels();
  if (conv_kind(kernels, g) != KernelKind::conv) return {};
  const int64_t run = run_shape(forward_gather(g, {}, nullptr, {}, {}, 0), false).length;
  return modes_of(kernels, g, forward_mode, x, precision, run, extras && has_amx(active_isa()) ? 1 : shortest_run);
}

Modes dgrad_modes(const ConvGeometry& g, DType dy, Precision precision) {
  const KernelTable& kernels = active_kernels();
  if (conv_kind(kernels, g) != KernelKind::conv) return {};
  return modes_of(kernels, g, dgrad_mode, dy, precision, g.out_channels / g.groups);
}

bool on_tiles(GatherMode mode) { return is_direct_bf16(mode) && has_amx(active_isa()); }
bool filters(GatherMode mode) { return mode != GatherMode::f32 && !is_direct_bf16(mode); }

}  // namespace

std::shared_ptr<const KeptWeights> keep_conv_weights(const ConvGeometry& g, const float* w, bool transposed, Precision precision) {
  check("keep_conv_weights", g);
  const GatherMode mode = transposed ? dgrad_modes(g, DType::f32, precision).chosen : forward_modes(g, DType::f32, precision, true).chosen;
  if (!on_tiles(mode)) return nullptr;
  auto kept = std::make_shared<KeptWeights>();
  const bool finite = (transposed ? keep_dgrad : keep_forward)(active_kernels(), g, w, mode, *kept);
  return finite ? kept : nullptr;
}

namespace {

bool on_tiles(const MatmulShape& s, GatherMode mode, bool kept) {
  return on_tiles(mode) && suits_bf16(s, DType::f32, mode == GatherMode::bf16x3, kept);
}

}  // namespace

std::shared_ptr<const KeptWeights> keep_matrix(const MatmulShape& shape, const float* b, Precision precision) {
  MatmulShape s = shape;
  merge_batch_into_rows(s);
  const GatherMode mode = direct_mode(DType::f32, precision, s.k);
  const bool one = std::all_of(s.batch.begin(), s.batch.end(), [](const BatchAxis& axis) { return axis.size == 1; });
  if (!one || !on_tiles(s, mode, true)) return nullptr;
  auto kept = std::make_shared<KeptWeights>();
  return keep_b(active_kernels(), s, b, mode, *kept) ? kept : nullptr;
}

bool takes_bf16(const MatmulShape& shape, const KeptWeights* kept, Precision precision) {
  MatmulShape s = shape;
  merge_batch_into_rows(s);
  return precision == Precision::bf16 && on_tiles(s, direct_mode(DType::f32, precision, s.k), kept != nullptr);
}

std::string_view conv_forward(const ConvGeometry& g, ConstBuffer x, ConstBuffer w, Buffer y,
                              const Epilogue& epilogue, Precision precision) {
  require_types("conv", x, w, y);
  check("conv", g);
  const ConvSizes n = sizes_of(g);
  const KernelTable& kernels = active_kernels();
  const KernelKind kind = conv_kind(kernels, g);
  const Modes mode = forward_modes(g, x.dtype, precision);
  const bool rounded = kind == KernelKind::conv && rounds_first(precision);
  const bool by_f32 = rounded || x.dtype == DType::bf16;
  const std::string_view name = implementation(kind, mode.chosen, by_f32);
  if (x.data == nullptr) return name;
  const float* wf = widened_weights(kernels, w, n.w, rounded);
  if (on_bf16(mode.chosen) && dense_forward(kernels, g, x, {wf, w.kept}, y, epilogue, mode.chosen)) return name;
  wf = needed_weights(wf, w, n.w);
  const float* xf = widened(kernels, x, n.x, Purpose::input_a, rounded);
  float* yf = f32_output(y, n.y);
  const WideEpilogue wide(kernels, epilogue, n.y);
  const LateFinish finish(*wide);
  if (kind == KernelKind::channel_scale) {
    channel_scale_forward(kernels, g, xf, wf, yf, finish.first());
    finish.apply(kernels, {yf, DType::f32}, n.y);
  } else if (kind == KernelKind::depthwise) {
    depthwise_forward(kernels, g, xf, wf, yf, finish.first());
    finish.apply(kernels, {yf, DType::f32}, n.y);
  } else {
    dense_forward(kernels, g, {xf, DType::f32}, {wf}, {yf, DType::f32}, *wide, mode.on_f32);
  }
  narrow_output(kernels, yf, n.y, y);
  return implementation(kind, mode.on_f32, by_f32);
}

bool takes_bf16(const ConvGeometry& g, bool transposed, Precision precision) {
  const Modes modes = transposed ? dgrad_modes(g, DType::f32, precision) : forward_modes(g, DType::f32, precision);
  return precision == Precision::bf16 && on_bf16(modes.chosen);
}

std::string_view takes_extras(const ConvGeometry& g, DType x, const ConvExtras& extras, DType y, Precision precision) {
  const GatherMode mode = forward_modes(g, DType::f32, precision, true).chosen;
  if (g.groups != 1) return {};
  if (!is_direct_bf16(mode)) {
    const bool f32 = x == DType::f32 && y == DType::f32 && (extras.second.channels == 0 || extras.second.buffer.dtype == DType::f32);
    const bool simple = extras.norm == nullptr || extras.norm->activation <= Activation::leaky_relu;
    if (!filters(mode) || !(f32 || on_pairs(mode)) || !simple || rounds_first(precision)) return {};
  }
  return implementation(KernelKind::conv, mode, false);
}

bool conv_forward_with(const ConvExtras& extras, const ConvGeometry& g, ConstBuffer x, ConstBuffer w, Buffer y,
                       const Epilogue& epilogue, Precision precision) {
  const KernelTable& kernels = active_kernels();
  const ConvSizes n = sizes_of(g);
  const GatherMode mode = forward_modes(g, x.dtype, precision, true).chosen;
  const float* wf = widened_weights(kernels, w, n.w);
  if (on_bf16(mode)) return dense_forward(kernels, g, x, {wf, w.kept}, y, epilogue, mode, extras);
  const WideEpilogue wide(kernels, epilogue, n.y);
  return dense_forward(kernels, g, x, {wf}, y, *wide, mode, extras);
}

std::string_view conv_dgrad(const ConvGeometry& g, ConstBuffer dy, ConstBuffer w, Buffer dx,
                            const Epilogue& epilogue, Precision precision) {
  require_types("conv_dgrad", dy, w, dx);
  check("conv_dgrad", g);
  const ConvSizes n = sizes_of(g);
  const KernelTable& kernels = active_kernels();
  const KernelKind kind = conv_kind(kernels, g);
  const Modes mode = dgrad_modes(g, dy.dtype, precision);
  const bool rounded = kind == KernelKind::conv && rounds_first(precision);
  const bool by_f32 = rounded || dy.dtype == DType::bf16;
  const std::string_view name = implementation(kind, mode.chosen, by_f32);
  if (dy.data == nullptr) return name;
  const float* wf = widened_weights(kernels, w, n.w, rounded);
  if (on_bf16(mode.chosen) && dense_dgrad(kernels, g, dy, {wf, w.kept}, dx, epilogue, mode.chosen)) return name;
  wf = needed_weights(wf, w, n.w);
  const float* dyf = widened(kernels, dy, n.y, Purpose::input_a, rounded);
  float* dxf = f32_output(dx, n.x);
  const WideEpilogue wide(kernels, epilogue, n.x);
  const LateFinish finish(*wide);
  if (kind == KernelKind::channel_scale) {
    channel_scale_dgrad(kernels, g, dyf, wf, dxf, finish.first());
    finish.apply(kernels, {dxf, DType::f32}, n.x);
  } else if (kind == KernelKind::depthwise) {
    depthwise_dgrad(kernels, g, dyf, wf, dxf, finish.first());
    finish.apply(kernels, {dxf, DType::f32}, n.x);
  } else {
    dense_dgrad(kernels, g, {dyf, DType::f32}, {wf}, {dxf, DType::f32}, *wide, mode.on_f32);
  }
  narrow_output(kernels, dxf, n.x, dx);
  return implementation(kind, mode.on_f32, by_f32);
}

namespace {

// Rows of both inputs side by side, as f32.
const float* joined_input(const KernelTable& kernels, const ConvGeometry& g, ConstBuffer x, const SecondInput& second) {
  const int64_t rows = g.batch * product(g.in), first = g.in_channels - second.channels;
  const float* a = widened(kernels, x, rows * first, Purpose::input_a);
  const float* b = widened(kernels, second.buffer, rows * second.channels, Purpose::residual);
  float* to = scratch(Purpose::joined, rows * g.in_channels);
  parallel_for(rows, convert_grain / g.in_channels + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::copy_n(a + i * first, first, to + i * g.in_channels);
      std::copy_n(b + i * second.channels, second.channels, to + i * g.in_channels + first);
    }
  });
  return to;
}

Modes wgrad_modes(const ConvGeometry& g, DType input, Precision precision) {
  const KernelTable& kernels = active_kernels();
  const GatherMode filtered = wgrad_mode(kernels, g, pairs_for(input, precision));
  const GatherMode direct = direct_mode(input, precision, product(g.out()));  // its sums run over positions
  const bool suits = filtered != GatherMode::winograd_pairs && direct != GatherMode::f32 && suits_wgrad_amx(g, direct == GatherMode::bf16x3);
  return {suits ? direct : filtered, filtered};
}

}  // namespace

bool wgrad_takes_two(const ConvGeometry& g, int64_t second_channels, Precision precision) {
  const int64_t first = g.in_channels - second_channels;
  return g.groups == 1 && first > 0 && first % amx_columns == 0 && on_tiles(wgrad_modes(g, DType::f32, precision).chosen);
}

bool wgrad_takes_bf16(const ConvGeometry& g, Precision precision) {
  return precision == Precision::bf16 && conv_kind(active_kernels(), g) == KernelKind::conv &&
         on_bf16(wgrad_modes(g, DType::f32, precision).chosen);
}

std::string_view conv_wgrad(const ConvGeometry& g, ConstBuffer x, ConstBuffer dy, Buffer dw,
                            Precision precision, const SecondInput& second) {
  require_types("conv_wgrad", x, dy, dw);
  check("conv_wgrad", g);
  const ConvSizes n = sizes_of(g);
  const KernelTable& kernels = active_kernels();
  const KernelKind kind = conv_kind(kernels, g);
  const bool bf16 = x.dtype == DType::bf16 || dy.dtype == DType::bf16;
  const Modes mode = kind == KernelKind::conv ? wgrad_modes(g, bf16 ? DType::bf16 : DType::f32, precision) : Modes{};
  const std::string_view name = implementation(kind, mode.chosen, bf16);
  if (x.data == nullptr) return name;
  float* dwf = f32_output(dw, n.w);
  const bool two = second.channels > 0;
  const bool done = is_direct_bf16(mode.chosen) && (!two || wgrad_takes_two(g, second.channels, precision)) &&
                    wgrad_amx(g, x, second, dy, {dwf, DType::f32, dw.far && dw.data == dwf}, mode.chosen == GatherMode::bf16x3);
  if (on_pairs(mode.chosen)) {
    dense_wgrad(kernels, g, two ? ConstBuffer{joined_input(kernels, g, x, second)} : x, dy, dwf, mode.chosen);
  } else if (!done) {
    const float* xf = two ? joined_input(kernels, g, x, second) : widened(kernels, x, n.x, Purpose::input_a);
    const float* dyf = widened(kernels, dy, n.y, Purpose::input_b);
    if (kind == KernelKind::channel_scale) {
      channel_scale_wgrad(kernels, g, xf, dyf, dwf);
    } else if (kind == KernelKind::depthwise) {
      depthwise_wgrad(kernels, g, xf, dyf, dwf);
    } else {
      dense_wgrad(kernels, g, {xf}, {dyf}, dwf, mode.on_f32);
    }
  }
  narrow_output(kernels, dwf, n.w, dw);
  return done ? name : implementation(kind, mode.on_f32, bf16);
}

std::string_view matmul(const MatmulShape& shape, ConstBuffer a, ConstBuffer b, Buffer c,
                        const Epilogue& epilogue, Precision precision) {
  require_types("matmul", a, b, c);
  MatmulShape s = shape;
  if (s.m < 0 || s.n < 0 || s.k < 0) {
    fail("matmul", "sizes must not be negative, got " + std::to_string(s.m) + " x " +
                       std::to_string(s.k) + " times " + std::to_string(s.k) + " x " +
                       std::to_string(s.n));
  }
  merge_batch_into_rows(s);
  const KernelTable& kernels = active_kernels();
  const bool plain = epilogue.bias == nullptr && epilogue.residual == nullptr && epilogue.activation == Activation::none;
  const bool all_f32 = a.dtype == DType::f32 && b.dtype == DType::f32 && c.dtype == DType::f32;
  const GatherMode direct = direct_mode(a.dtype, precision, s.k);
  const std::optional<ConvGeometry> gradient = plain && all_f32 && b.kept == nullptr ? as_weight_gradient(s, direct) : std::nullopt;
  const bool suits = suits_bf16(s, a.dtype, direct == GatherMode::bf16x3, b.kept != nullptr);
  const GatherMode mode = gradient || suits ? direct : GatherMode::f32;
  const bool rounded = rounds_first(precision), by_f32 = rounded || a.dtype == DType::bf16;
  const std::string_view name = implementation(KernelKind::matmul, mode, by_f32);
  if (a.data == nullptr) return name;
  const Extents n = extents_of(s);
  const float* bf = widened_weights(kernels, b, n.b, rounded);
  const PairTable* pairs = mode == GatherMode::bf16 ? active_pairs() : nullptr;
  if (is_direct_bf16(mode) && gradient) {
    if (wgrad_amx(*gradient, a, {}, b, c, mode == GatherMode::bf16x3))
      return name;
  } else if (is_direct_bf16(mode) && pairs == nullptr && matmul_amx(kernels, s, a, {bf, b.kept}, c, epilogue, mode)) {
    return name;
  }
  bf = needed_weights(bf, b, n.b);
  const float* af = widened(kernels, a, n.a, Purpose::input_a, rounded);
  float* cf = f32_output(c, n.c);
  dense_matmul(kernels, s, af, bf, {cf, DType::f32, c.far && c.data == cf}, epilogue, pairs);
  if (c.dtype == DType::bf16) narrow_matrix(kernels, s, cf, c);
  return pairs != nullptr ? name : implementation(KernelKind::matmul, GatherMode::f32, by_f32);
}

}  // namespace voxlab::cpu
