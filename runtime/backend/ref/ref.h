// The reference backend: plain loops that compute in f64, whatever the tensors' dtype. It is the oracle
// of every other backend, so each function here is the shortest one that could be right.
#pragma once

#include <span>
#include <vector>

#include "runtime/ops/all.h"

namespace voxlab::ref {

// A contiguous tensor read into doubles.
struct Array {
  Shape shape;
  std::vector<double> v;
  bool present = true;

  int64_t numel() const { return static_cast<int64_t>(v.size()); }
  double& operator[](int64_t i) { return v[static_cast<size_t>(i)]; }
  double operator[](int64_t i) const { return v[static_cast<size_t>(i)]; }
};

using RefInputs = std::span<const Array>;  // absent optional inputs have present == false
using RefOutputs = std::span<Array>;       // shaped, zero-filled; an overwritten input's values first

void reference(const Contiguous::Attrs&, RefInputs in, RefOutputs out);
void reference(const Cast::Attrs&, RefInputs in, RefOutputs out);
void reference(const Concat::Attrs&, RefInputs in, RefOutputs out);
void reference(const Pad::Attrs&, RefInputs in, RefOutputs out);
void reference(const Unary::Attrs&, RefInputs in, RefOutputs out);
void reference(const UnaryGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const Binary::Attrs&, RefInputs in, RefOutputs out);
void reference(const Reduce::Attrs&, RefInputs in, RefOutputs out);
void reference(const Argmax::Attrs&, RefInputs in, RefOutputs out);
void reference(const Conv::Attrs&, RefInputs in, RefOutputs out);
void reference(const ConvDgrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const ConvWgrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const ConvTranspose::Attrs&, RefInputs in, RefOutputs out);
void reference(const Matmul::Attrs&, RefInputs in, RefOutputs out);
void reference(const Linear::Attrs&, RefInputs in, RefOutputs out);
void reference(const GroupNorm::Attrs&, RefInputs in, RefOutputs out);
void reference(const GroupNormGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const LayerNorm::Attrs&, RefInputs in, RefOutputs out);
void reference(const LayerNormGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const BatchNorm::Attrs&, RefInputs in, RefOutputs out);
void reference(const BatchNormGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const BatchNormInference::Attrs&, RefInputs in, RefOutputs out);
void reference(const Softmax::Attrs&, RefInputs in, RefOutputs out);
void reference(const SoftmaxGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const LogSoftmax::Attrs&, RefInputs in, RefOutputs out);
void reference(const LogSoftmaxGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const L2Normalise::Attrs&, RefInputs in, RefOutputs out);
void reference(const L2NormaliseGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const Dropout::Attrs&, RefInputs in, RefOutputs out);
void reference(const Resize::Attrs&, RefInputs in, RefOutputs out);
void reference(const ResizeGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const AvgPool::Attrs&, RefInputs in, RefOutputs out);
void reference(const AvgPoolGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const Gather::Attrs&, RefInputs in, RefOutputs out);
void reference(const GatherGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const Membership::Attrs&, RefInputs in, RefOutputs out);
void reference(const CrossEntropy::Attrs&, RefInputs in, RefOutputs out);
void reference(const CrossEntropyGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const BinaryCrossEntropy::Attrs&, RefInputs in, RefOutputs out);
void reference(const BinaryCrossEntropyGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const ClassSums::Attrs&, RefInputs in, RefOutputs out);
void reference(const ClassSumsGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const SgdStep::Attrs&, RefInputs in, RefOutputs out);
void reference(const AdamStep::Attrs&, RefInputs in, RefOutputs out);
void reference(const SquaredNorm::Attrs&, RefInputs in, RefOutputs out);
void reference(const FusedConv::Attrs&, RefInputs in, RefOutputs out);
void reference(const FusedConvTranspose::Attrs&, RefInputs in, RefOutputs out);
void reference(const FusedConvDgrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const FusedConvWgrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const FusedLinear::Attrs&, RefInputs in, RefOutputs out);
void reference(const FusedGroupNorm::Attrs&, RefInputs in, RefOutputs out);
void reference(const LossHead::Attrs&, RefInputs in, RefOutputs out);
void reference(const LossHeadGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const NormActivation::Attrs&, RefInputs in, RefOutputs out);
void reference(const NormActivationGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const NormSum::Attrs&, RefInputs in, RefOutputs out);
void reference(const NormSumGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const LayerNormGelu::Attrs&, RefInputs in, RefOutputs out);
void reference(const LayerNormGeluGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const ConvNormGelu::Attrs&, RefInputs in, RefOutputs out);
void reference(const NormScaling::Attrs&, RefInputs in, RefOutputs out);
void reference(const NormScalingGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const ConvNormScaling::Attrs&, RefInputs in, RefOutputs out);
void reference(const FusedAttention::Attrs&, RefInputs in, RefOutputs out);
void reference(const EfficientAttention::Attrs&, RefInputs in, RefOutputs out);
void reference(const TransposeAttention::Attrs&, RefInputs in, RefOutputs out);
void reference(const TrainingAttention::Attrs&, RefInputs in, RefOutputs out);
void reference(const TrainingAttentionGrad::Attrs&, RefInputs in, RefOutputs out);
void reference(const PairedAttention::Attrs&, RefInputs in, RefOutputs out);

// Installs a kernel for every op above on Device::ref; the cpu backend falls back on them by name.
void install();

}  // namespace voxlab::ref
