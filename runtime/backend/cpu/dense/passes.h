// The f32 passes behind the public functions of dense.h, one kernel family a file.
#pragma once

#include <functional>

#include "runtime/backend/cpu/dense/dense.h"
#include "runtime/backend/cpu/dense/kernels.h"

namespace voxlab::cpu {

// Too few channels a group to fill a vector: computed channel by channel across groups.
bool is_depthwise(const ConvGeometry& geometry, int width);

void depthwise_forward(const KernelTable& kernels, const ConvGeometry& geometry, const float* x,
                       const float* w, float* y, const Epilogue& epilogue);
// The same, whose results go nowhere else: use(first, rows, y) gets them a few positions at a time, `rows` neighbours from
// position `first` of all on, as rows of channels. Threads call it side by side.
using UseRows = std::function<void(int64_t first, int64_t rows, const float* y)>;
void depthwise_forward_rows(const KernelTable& kernels, const ConvGeometry& geometry, const float* x, const float* w,
                            const float* bias, const UseRows& use);
void depthwise_dgrad(const KernelTable& kernels, const ConvGeometry& geometry, const float* dy,
                     const float* w, float* dx, const Epilogue& epilogue);
void depthwise_wgrad(const KernelTable& kernels, const ConvGeometry& geometry, const float* x,
                     const float* dy, float* dw);

// A kernel of 1 on grouped channels whose groups have one channel on one side and 1, 2, 4 or 8 on the other:
// elementwise but for short sums.
bool is_channel_scale(const ConvGeometry& geometry);

void channel_scale_forward(const KernelTable& kernels, const ConvGeometry& geometry, const float* x,
                           const float* w, float* y, const Epilogue& epilogue);
void channel_scale_dgrad(const KernelTable& kernels, const ConvGeometry& geometry, const float* dy,
                         const float* w, float* dx, const Epilogue& epilogue);
void channel_scale_wgrad(const KernelTable& kernels, const ConvGeometry& geometry, const float* x,
                         const float* dy, float* dw);

// How the products of a gather are formed: of f32, directly or by Winograd's algorithm; of bf16 by that algorithm
// (pairs); or of bf16 directly, on AMX where there is any.
enum class GatherMode : uint8_t { f32, winograd, winograd3, winograd_pairs, winograd3_pairs, bf16, bf16x3 };

// Winograd's algorithm where it is faster than direct sums of the same products, else f32. Without `pairs` products are
// f32, and all modes have the same error.
GatherMode forward_mode(const KernelTable& kernels, const ConvGeometry& geometry, const PairTable* pairs);
GatherMode dgrad_mode(const KernelTable& kernels, const ConvGeometry& geometry, const PairTable* pairs);
GatherMode wgrad_mode(const KernelTable& kernels, const ConvGeometry& geometry, const PairTable* pairs);

struct DenseWeights {
  const float* data;
  const KeptWeights* kept = nullptr;  // of the mode that runs
};

// All but bf16 and bf16x3 need f32 buffers. False, with the output in an unspecified state, when one of these two met
// a value that is not finite.
bool dense_forward(const KernelTable& kernels, const ConvGeometry& geometry, ConstBuffer x,
                   const DenseWeights& w, Buffer y, const Epilogue& epilogue, GatherMode mode, const ConvExtras& extras = {});
bool dense_dgrad(const KernelTable& kernels, const ConvGeometry& geometry, ConstBuffer dy,
                 const DenseWeights& w, Buffer dx, const Epilogue& epilogue, GatherMode mode);
// What their DenseWeights may keep under bf16 or bf16x3 on tiles; false when a weight is not finite.
bool keep_forward(const KernelTable& kernels, const ConvGeometry& geometry, const float* w, GatherMode mode, KeptWeights& to);
bool keep_dgrad(const KernelTable& kernels, const ConvGeometry& geometry, const float* w, GatherMode mode, KeptWeights& to);
// x and dy are f32, or with winograd_pairs bf16.
void dense_wgrad(const KernelTable& kernels, const ConvGeometry& geometry, ConstBuffer x, ConstBuffer dy, float* dw, GatherMode mode);

// The weight gradient on products of bf16, or with `split` three of them. It suits where it should cost less than the f32
// kernels; bf16 x and dy are for plain ones. False, with dw in an unspecified state, when a value is not finite.
bool suits_wgrad_amx(const ConvGeometry& geometry, bool split);
// A second input's first channel begins a tile.
bool wgrad_amx(const ConvGeometry& geometry, ConstBuffer x, const SecondInput& second, ConstBuffer dy, Buffer dw, bool split);

// A batch axis with one B whose A and C matrices follow each other is just more rows.
void merge_batch_into_rows(MatmulShape& shape);

// Whether size and strides suit products of bf16, or with `split` three of them; `kept`: whether B is ready.
bool suits_bf16(const MatmulShape& shape, DType a, bool split, bool kept);

// False when a value is not finite; C is then in an unspecified state.
bool matmul_amx(const KernelTable& kernels, const MatmulShape& shape, ConstBuffer a, const DenseWeights& b,
                Buffer c, const Epilogue& epilogue, GatherMode mode);
// What a B of one matrix may keep.
bool keep_b(const KernelTable& kernels, const MatmulShape& shape, const float* b, GatherMode mode, KeptWeights& to);

// Products of f32, or of bf16 with `pairs`; C is f32.
void dense_matmul(const KernelTable& kernels, const MatmulShape& shape, const float* a,
                  const float* b, Buffer c, const Epilogue& epilogue, const PairTable* pairs = nullptr);

}  // namespace voxlab::cpu
