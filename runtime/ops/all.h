// Every op, once. Backends and the generic tests walk this list; a new op adds its line here.
#pragma once

#include "runtime/ops/binary.h"
#include "runtime/ops/conv.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/dropout.h"
#include "runtime/ops/efficient_attention.h"
#include "runtime/ops/fused.h"
#include "runtime/ops/fused_gradients.h"
#include "runtime/ops/gather.h"
#include "runtime/ops/layer_norm_gelu.h"
#include "runtime/ops/loss.h"
#include "runtime/ops/loss_head.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/norm.h"
#include "runtime/ops/norm_activation.h"
#include "runtime/ops/norm_scaling.h"
#include "runtime/ops/paired_attention.h"
#include "runtime/ops/pool.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/resize.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/training_attention.h"
#include "runtime/ops/unary.h"
#include "runtime/ops/update.h"
#include "runtime/ops/view.h"

namespace voxlab {

template <class... Ops>
struct OpList {
  // f.template operator()<Op>() for every op.
  template <class F>
  static void for_each(F f) {
    (f.template operator()<Ops>(), ...);
  }
};

using AllOps = OpList<
    Reshape, Permute, Split, Slice, Broadcast,
    Contiguous, Cast, Concat, Pad,
    Unary, UnaryGrad, Binary, Reduce, Argmax,
    Conv, ConvDgrad, ConvWgrad, ConvTranspose,
    Matmul, Linear,
    GroupNorm, GroupNormGrad, LayerNorm, LayerNormGrad, BatchNorm, BatchNormGrad, BatchNormInference,
    Softmax, SoftmaxGrad, LogSoftmax, LogSoftmaxGrad, L2Normalise, L2NormaliseGrad,
    Dropout, Resize, ResizeGrad, AvgPool, AvgPoolGrad, Gather, GatherGrad,
    Membership, CrossEntropy, CrossEntropyGrad, BinaryCrossEntropy, BinaryCrossEntropyGrad, ClassSums,
    ClassSumsGrad, SgdStep, AdamStep, SquaredNorm, FusedConv, FusedConvTranspose, FusedLinear, FusedGroupNorm, FusedAttention, PairedAttention, EfficientAttention, TransposeAttention, FusedConvDgrad, FusedConvWgrad,
    LossHead, LossHeadGrad, NormActivation, NormActivationGrad, NormSum, NormSumGrad, LayerNormGelu, LayerNormGeluGrad, ConvNormGelu, NormScaling, NormScalingGrad, ConvNormScaling,
    TrainingAttention, TrainingAttentionGrad>;

inline std::vector<const OpRecord*> all_ops() {
  std::vector<const OpRecord*> records;
  AllOps::for_each([&]<class Op>() { records.push_back(&record_of<Op>()); });
  return records;
}

}  // namespace voxlab
