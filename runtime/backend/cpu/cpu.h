// The CPU backend: fast kernels on host memory. Each `prepare` overload makes the kernel of one op, or
// declines by returning one without `run` (a dtype it does not have); the reference kernel then runs
// and the profile row shows its name.
#pragma once

#include "runtime/ops/all.h"
#include "runtime/ops/kernel.h"

namespace voxlab::cpu {

Kernel prepare(const Contiguous::Attrs&, Descs in, Descs out);
Kernel prepare(const Cast::Attrs&, Descs in, Descs out);
Kernel prepare(const Concat::Attrs&, Descs in, Descs out);
Kernel prepare(const Pad::Attrs&, Descs in, Descs out);
Kernel prepare(const Unary::Attrs&, Descs in, Descs out);
Kernel prepare(const UnaryGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const Binary::Attrs&, Descs in, Descs out);
Kernel prepare(const Reduce::Attrs&, Descs in, Descs out);
Kernel prepare(const Argmax::Attrs&, Descs in, Descs out);
Kernel prepare(const GroupNorm::Attrs&, Descs in, Descs out);
Kernel prepare(const GroupNormGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const LayerNorm::Attrs&, Descs in, Descs out);
Kernel prepare(const LayerNormGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const BatchNorm::Attrs&, Descs in, Descs out);
Kernel prepare(const BatchNormGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const BatchNormInference::Attrs&, Descs in, Descs out);
Kernel prepare(const Softmax::Attrs&, Descs in, Descs out);
Kernel prepare(const SoftmaxGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const LogSoftmax::Attrs&, Descs in, Descs out);
Kernel prepare(const LogSoftmaxGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const L2Normalise::Attrs&, Descs in, Descs out);
Kernel prepare(const L2NormaliseGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const Dropout::Attrs&, Descs in, Descs out);
Kernel prepare(const Resize::Attrs&, Descs in, Descs out);
Kernel prepare(const ResizeGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const AvgPool::Attrs&, Descs in, Descs out);
Kernel prepare(const AvgPoolGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const Gather::Attrs&, Descs in, Descs out);
Kernel prepare(const GatherGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const Membership::Attrs&, Descs in, Descs out);
Kernel prepare(const CrossEntropy::Attrs&, Descs in, Descs out);
Kernel prepare(const CrossEntropyGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const BinaryCrossEntropy::Attrs&, Descs in, Descs out);
Kernel prepare(const BinaryCrossEntropyGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const ClassSums::Attrs&, Descs in, Descs out);
Kernel prepare(const ClassSumsGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const SgdStep::Attrs&, Descs in, Descs out);
Kernel prepare(const AdamStep::Attrs&, Descs in, Descs out);
Kernel prepare(const SquaredNorm::Attrs&, Descs in, Descs out);
Kernel prepare(const Conv::Attrs&, Descs in, Descs out);
Kernel prepare(const ConvDgrad::Attrs&, Descs in, Descs out);
Kernel prepare(const ConvWgrad::Attrs&, Descs in, Descs out);
Kernel prepare(const ConvTranspose::Attrs&, Descs in, Descs out);
Kernel prepare(const Matmul::Attrs&, Descs in, Descs out);
Kernel prepare(const Linear::Attrs&, Descs in, Descs out);
Kernel prepare(const FusedConv::Attrs&, Descs in, Descs out);
Kernel prepare(const FusedConvTranspose::Attrs&, Descs in, Descs out);
Kernel prepare(const FusedConvDgrad::Attrs&, Descs in, Descs out);
Kernel prepare(const FusedConvWgrad::Attrs&, Descs in, Descs out);
Kernel prepare(const FusedLinear::Attrs&, Descs in, Descs out);
Kernel prepare(const FusedGroupNorm::Attrs&, Descs in, Descs out);
Kernel prepare(const LossHead::Attrs&, Descs in, Descs out);
Kernel prepare(const LossHeadGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const NormActivation::Attrs&, Descs in, Descs out);
Kernel prepare(const NormActivationGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const NormSum::Attrs&, Descs in, Descs out);
Kernel prepare(const NormSumGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const LayerNormGelu::Attrs&, Descs in, Descs out);
Kernel prepare(const LayerNormGeluGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const ConvNormGelu::Attrs&, Descs in, Descs out);
Kernel prepare(const NormScaling::Attrs&, Descs in, Descs out);
Kernel prepare(const NormScalingGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const ConvNormScaling::Attrs&, Descs in, Descs out);
Kernel prepare(const FusedAttention::Attrs&, Descs in, Descs out);
Kernel prepare(const EfficientAttention::Attrs&, Descs in, Descs out);
Kernel prepare(const TransposeAttention::Attrs&, Descs in, Descs out);
Kernel prepare(const TrainingAttention::Attrs&, Descs in, Descs out);
Kernel prepare(const TrainingAttentionGrad::Attrs&, Descs in, Descs out);
Kernel prepare(const PairedAttention::Attrs&, Descs in, Descs out);

// Installs every kernel above on Device::cpu.
void install();

}  // namespace voxlab::cpu
