// Public entry points: argument checks, 16-bit types and the choice of kernel family.
#include "runtime/backend/cpu/dense/dense.h"

#include <string>

#include "runtime/backend/cpu/dense/passes.h"
#include "runtime/backend/cpu/dense/scratch.h"
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

// f32 view of an input; bf16 is widened into scratch.
const float* widened(const KernelTable& kernels, ConstBuffer in, int64_t n, Purpose purpose) {
  if (in.dtype == DType::f32) return static_cast<const float*>(in.data);
  float* out = scratch(purpose, n);
  const auto* bits = static_cast<const uint16_t*>(in.data);
  parallel_for(n, convert_grain, [&](int64_t begin, int64_t end) {
    kernels.widen(bits + begin, end - begin, out + begin);
  });
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

// Only the f32 tiles add a residual while they store. Other kernels compute value + bias, and what is
// left of the epilogue takes a pass of its own.
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

void require_f32_residual(std::string_view where, const Epilogue& epilogue, Buffer out) {
  if (epilogue.residual != nullptr && out.dtype != DType::f32)
    fail(where, "a residual needs an f32 output, got " + std::string(name(out.dtype)));
}

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

// AMX where it is there and a run of K, `run` values long, fills at least a quarter of a tile:
// below that the f32 kernels are faster. bf16 products of AVX-512 are only twice as fast as f32 ones, less than what
// minimal filtering saves; the widened copies pay from about 48 channels on, the fewer of input's and output's.
GatherMode gather_mode(DType input, Precision precision, int64_t run, GatherMode f32_mode, int64_t channels) {
  constexpr int64_t shortest_run = 8, widening_pays = 48;
  const Isa isa = active_isa();
  if (run < shortest_run) return f32_mode;
  const bool filtered = f32_mode == GatherMode::winograd || f32_mode == GatherMode::winograd3;
  if (isa == Isa::avx512_bf16 && filtered && channels >= widening_pays) return f32_mode;
  if (input == DType::bf16) return multiplies_bf16(isa) ? GatherMode::bf16 : f32_mode;
  return precision == Precision::bf16x3 && has_amx(isa) ? GatherMode::bf16x3 : f32_mode;
}

bool on_bf16(GatherMode mode) { return mode == GatherMode::bf16 || mode == GatherMode::bf16x3; }

std::string_view implementation(KernelKind kind, GatherMode mode, DType input) {
  if (mode == GatherMode::winograd) kind = KernelKind::winograd;
  if (mode == GatherMode::winograd3) kind = KernelKind::winograd3;
  if (on_bf16(mode)) return amx_name(kind, mode == GatherMode::bf16x3);
  return kernel_name(kind, input == DType::bf16);
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

}  // namespace

std::array<int64_t, 3> ConvGeometry::out() const {
  std::array<int64_t, 3> size;
  for (int i = 0; i < 3; ++i) {
    const int64_t room = in[i] + 2 * pad[i] - dilation[i] * (kernel[i] - 1) - 1;
    size[i] = room < 0 || stride[i] < 1 ? 0 : room / stride[i] + 1;
  }
  return size;
}

std::string_view conv_forward(const ConvGeometry& g, ConstBuffer x, ConstBuffer w, Buffer y,
                              const Epilogue& epilogue, Precision precision) {
  require_types("conv", x, w, y);
  check("conv", g);
  const ConvSizes n = sizes_of(g);
  const KernelTable& kernels = active_kernels();
  const KernelKind kind = conv_kind(kernels, g);
  GatherMode mode = GatherMode::f32, f32_mode = GatherMode::f32;
  const int64_t channels = std::min(g.in_channels, g.out_channels) / g.groups;
  if (kind == KernelKind::conv) {
    f32_mode = f32_forward_mode(kernels, g);
    mode = gather_mode(x.dtype, precision, g.kernel[2] * g.in_channels / g.groups, f32_mode, channels);
  }
  const std::string_view name = implementation(kind, mode, x.dtype);
  if (x.data == nullptr) return name;
  require_f32_residual("conv", epilogue, y);
  const float* wf = widened(kernels, w, n.w, Purpose::input_b);
  if (on_bf16(mode)) {
    const LateFinish finish(epilogue);
    if (dense_forward(kernels, g, x, wf, y, finish.first(), mode)) {
      finish.apply(kernels, y, n.y);
      return name;
    }
  }
  const float* xf = widened(kernels, x, n.x, Purpose::input_a);
  float* yf = f32_output(y, n.y);
  const LateFinish finish(epilogue);
  if (kind == KernelKind::channel_scale) {
    channel_scale_forward(kernels, g, xf, wf, yf, finish.first());
    finish.apply(kernels, {yf, DType::f32}, n.y);
  } else if (kind == KernelKind::depthwise) {
    depthwise_forward(kernels, g, xf, wf, yf, finish.first());
    finish.apply(kernels, {yf, DType::f32}, n.y);
  } else {
    dense_forward(kernels, g, {xf, DType::f32}, wf, {yf, DType::f32}, epilogue, f32_mode);
  }
  narrow_output(kernels, yf, n.y, y);
  return implementation(kind, f32_mode, x.dtype);
}

std::string_view conv_dgrad(const ConvGeometry& g, ConstBuffer dy, ConstBuffer w, Buffer dx,
                            const Epilogue& epilogue, Precision precision) {
  require_types("conv_dgrad", dy, w, dx);
  check("conv_dgrad", g);
  const ConvSizes n = sizes_of(g);
  const KernelTable& kernels = active_kernels();
  const KernelKind kind = conv_kind(kernels, g);
  GatherMode mode = GatherMode::f32, f32_mode = GatherMode::f32;
  const int64_t channels = std::min(g.in_channels, g.out_channels) / g.groups;
  if (kind == KernelKind::conv) {
    f32_mode = f32_dgrad_mode(kernels, g);
    mode = gather_mode(dy.dtype, precision, g.out_channels / g.groups, f32_mode, channels);
  }
  const std::string_view name = implementation(kind, mode, dy.dtype);
  if (dy.data == nullptr) return name;
  const float* wf = widened(kernels, w, n.w, Purpose::input_b);
  if (on_bf16(mode) && dense_dgrad(kernels, g, dy, wf, dx, epilogue, mode)) return name;
  const float* dyf = widened(kernels, dy, n.y, Purpose::input_a);
  float* dxf = f32_output(dx, n.x);
  if (kind == KernelKind::channel_scale) {
    channel_scale_dgrad(kernels, g, dyf, wf, dxf, epilogue);
  } else if (kind == KernelKind::depthwise) {
    depthwise_dgrad(kernels, g, dyf, wf, dxf, epilogue);
  } else {
    dense_dgrad(kernels, g, {dyf, DType::f32}, wf, {dxf, DType::f32}, epilogue, f32_mode);
  }
  narrow_output(kernels, dxf, n.x, dx);
  return implementation(kind, f32_mode, dy.dtype);
}

std::string_view conv_wgrad(const ConvGeometry& g, ConstBuffer x, ConstBuffer dy, Buffer dw,
                            Precision) {
  require_types("conv_wgrad", x, dy, dw);
  check("conv_wgrad", g);
  const ConvSizes n = sizes_of(g);
  const KernelTable& kernels = active_kernels();
  const KernelKind kind = conv_kind(kernels, g);
  const GatherMode mode = kind == KernelKind::conv ? f32_wgrad_mode(kernels, g) : GatherMode::f32;
  const std::string_view name = implementation(kind, mode, x.dtype);
  if (x.data == nullptr) return name;
  const float* xf = widened(kernels, x, n.x, Purpose::input_a);
  const float* dyf = widened(kernels, dy, n.y, Purpose::input_b);
  float* dwf = f32_output(dw, n.w);
  if (kind == KernelKind::channel_scale) {
    channel_scale_wgrad(kernels, g, xf, dyf, dwf);
  } else if (kind == KernelKind::depthwise) {
    depthwise_wgrad(kernels, g, xf, dyf, dwf);
  } else {
    dense_wgrad(kernels, g, xf, dyf, dwf, mode);
  }
  narrow_output(kernels, dwf, n.w, dw);
  return name;
}

std::string_view matmul(const MatmulShape& s, ConstBuffer a, ConstBuffer b, Buffer c,
                        const Epilogue& epilogue, Precision precision) {
  require_types("matmul", a, b, c);
  if (s.m < 0 || s.n < 0 || s.k < 0) {
    fail("matmul", "sizes must not be negative, got " + std::to_string(s.m) + " x " +
                       std::to_string(s.k) + " times " + std::to_string(s.k) + " x " +
                       std::to_string(s.n));
  }
  const KernelTable& kernels = active_kernels();
  const GatherMode mode = suits_amx(s) ? gather_mode(a.dtype, precision, s.k, GatherMode::f32, 0)
                                          : GatherMode::f32;
  const std::string_view name = implementation(KernelKind::matmul, mode, a.dtype);
  if (a.data == nullptr) return name;
  require_f32_residual("matmul", epilogue, c);
  const Extents n = extents_of(s);
  const float* bf = widened(kernels, b, n.b, Purpose::input_b);
  if (on_bf16(mode)) {
    const LateFinish finish(epilogue);
    if (matmul_amx(kernels, s, a, bf, c, finish.first(), mode)) {
      finish.apply(kernels, c, n.c);
      return name;
    }
  }
  const float* af = widened(kernels, a, n.a, Purpose::input_a);
  float* cf = f32_output(c, n.c);
  dense_matmul(kernels, s, af, bf, cf, epilogue);
  if (c.dtype == DType::bf16) narrow_matrix(kernels, s, cf, c);
  return implementation(KernelKind::matmul, GatherMode::f32, a.dtype);
}

}  // namespace voxlab::cpu
