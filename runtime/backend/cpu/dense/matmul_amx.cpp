// A matrix product as a pointwise convolution on AMX: rows of A are positions, columns of B the
// output channels.
#include <utility>

#include "runtime/backend/cpu/dense/gather_conv.h"
#include "runtime/backend/cpu/dense/passes.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/dense/weights_amx.h"
#include "runtime/backend/cpu/isa.h"

namespace voxlab::cpu {

namespace {

// In cycles of a core, as measured on Sapphire Rapids: packing B and converting A, tiles, storing; against f32's kernels.
bool tiles_pay(const MatmulShape& s, bool split, bool kept) {
  constexpr double pack_cycles = 1.5, convert_cycles = 0.8, tile_cycles = 24, store_cycles = 0.5, call_cycles = 2e4;
  const int64_t rows_of_a = amx_rows * s.k * int64_t{sizeof(uint16_t)} * (split ? 2 : 1);
  if (rows_of_a > l2_bytes() / 3) return false;
  const auto m = static_cast<double>(s.m), n = static_cast<double>(s.n), k = static_cast<double>(s.k);
  const auto tiles = static_cast<double>(ceil_div(s.m, 16) * ceil_div(s.n, 16) * ceil_div(s.k, 32));
  const double packing = kept ? 0 : pack_cycles * n * k;
  const double by_tiles = packing + convert_cycles * m * k + tile_cycles * (split ? 3 : 1) * tiles + store_cycles * m * n;
  return by_tiles + call_cycles < m * n * k / 24;
}

GatherConv gather_of(const MatmulShape& s, const float* b) {
  GatherConv g;
  g.axis[2].in = g.axis[2].out = s.m;
  g.in_pitch = s.a.row;
  g.channels = s.k;
  g.columns = s.n;
  g.weights.data = b;
  g.weights.transposed = s.b.col != 1;
  g.weights.pitch = g.weights.transposed ? s.b.col : s.b.row;
  g.out_step[2] = s.c.row;
  return g;
}

}  // namespace

bool suits_bf16(const MatmulShape& s, DType a, bool split, bool kept) {
  const int64_t least_depth = 16, least_columns = 16;  // half a tile of K; one vector
  if (s.c.col != 1 || (s.b.col != 1 && s.b.row != 1) || s.k < least_depth || s.n < least_columns) return false;
  if (has_amx(active_isa())) return s.a.col == 1 && tiles_pay(s, split, kept);
  // Below this, converting the operands costs more than the faster products save.
  constexpr int64_t least_products = int64_t{1} << 20;
  if (s.m * s.n * s.k < least_products) return false;
  if (a != DType::f32) return s.a.col == 1;
  // Pairs of B's rows are packed in every call.
  const int64_t least_rows = 32;
  int64_t rows = s.m;
  for (const BatchAxis& axis : s.batch) rows *= axis.b == 0 ? axis.size : 1;
  return rows >= least_rows && (s.a.col == 1 || s.a.row == 1);
}

bool matmul_amx(const KernelTable& kernels, const MatmulShape& s, ConstBuffer a, const DenseWeights& b,
                Buffer c, const Epilogue& epilogue, GatherMode mode) {
  const auto& batch = s.batch;
  for (int64_t i = 0; i < batch[0].size * batch[1].size * batch[2].size; ++i) {
    const std::array<int64_t, 3> at = {i / (batch[1].size * batch[2].size),
                                       i / batch[2].size % batch[1].size, i % batch[2].size};
    GatherConv g = gather_of(s, b.data);
    for (size_t axis = 0; axis < 3; ++axis) {
      g.in_offset += at[axis] * batch[axis].a;
      g.out_offset += at[axis] * batch[axis].c;
      g.weights.data += at[axis] * batch[axis].b;
    }
    g.in = a;
    g.out = c;
    g.epilogue = epilogue;
    if (b.kept != nullptr) g.weights.tiles = &b.kept->gathers[0].tiles;
    if (!gather_conv_amx(kernels, std::move(g), mode == GatherMode::bf16x3)) return false;
  }
  return true;
}

bool keep_b(const KernelTable& kernels, const MatmulShape& s, const float* b, GatherMode mode, KeptWeights& to) {
  return keep_tiles(kernels, gather_of(s, b), b, mode == GatherMode::bf16x3, to);
}

}  // namespace voxlab::cpu
