// Depthwise 3x3 in a plane over many channels, without the compact scratch of depthwise.cpp: with
// nine taps a value, gathering channel slices that lie a whole pixel apart would cost more than the
// products.
#pragma once

#include "runtime/backend/cpu/dense/passes.h"

namespace voxlab::cpu {

bool is_depthwise_plane(const ConvGeometry& geometry, const Epilogue& epilogue);

void depthwise_plane_forward(const KernelTable& kernels, const ConvGeometry& geometry,
                             const float* x, const float* w, float* y, const float* bias);
// The same, of f32 or bf16, whose results go nowhere else: see depthwise_forward_rows.
void depthwise_plane_rows(const KernelTable& kernels, const ConvGeometry& geometry, ConstBuffer x, const float* w,
                          const float* bias, const UseRows& use);
void depthwise_plane_dgrad(const KernelTable& kernels, const ConvGeometry& geometry,
                           const float* dy, const float* w, float* dx, const float* bias);
void depthwise_plane_wgrad(const KernelTable& kernels, const ConvGeometry& geometry, const float* x,
                           const float* dy, float* dw);

}  // namespace voxlab::cpu
