// Rewrites a traced graph into fewer and larger ops that compute the same up to rounding.
#pragma once

#include "runtime/plan/trace.h"

namespace voxlab::plan {

// All of what follows, in this order.
void rewrite(Trace& graph);

// Every output becomes a value of its own: a copy where it is the input, a view, or an output already.
void own_outputs(Trace& graph);

// A batch norm in inference right after a convolution or a linear layer becomes part of its weight and
// bias (computed in f64).
void fold_batch_norms(Trace& graph);

// A depthwise convolution that keeps positions, plus its own input, and the same of a data gradient: 1 is added to the middle
// of the kernel instead. Before fuse_conv_sums. f32 only.
void fold_own_inputs(Trace& graph);

// The block of 3D UX-Net (NormScaling): layer norm, channel scaling, GELU, channel scaling, a factor a channel and the sum with a
// residual, and their gradients: one op each way; in inference with the depthwise convolution before them. f32 only.
void fuse_scalings(Trace& graph);

// A layer norm and the GELU that alone reads it, and their gradients: one op each way; in inference with the depthwise
// convolution before them. After fold_own_inputs. f32 only.
void fuse_layer_norms(Trace& graph);

// Efficient paired attention (PairedAttention), from the layer that makes query, key and values to the joined or added
// branches, and the sum of a residual and gamma times those where it follows: one op. Before fuse_attention. f32 only.
void fuse_paired_attention(Trace& graph);

// Attention that compares no tokens (EfficientAttention, TransposeAttention), from query, key and value to the joined heads: one op
// where no backward pass reads what lies between. f32 only.
void fuse_efficient_attention(Trace& graph);

// matmul, a sum that broadcasts to the scores (optional), softmax over the keys, matmul: one op. f32 only.
void fuse_attention(Trace& graph);

// matmul, softmax over the keys, dropout (optional), matmul, and their gradients: one op each way. Where no backward pass reads
// the weights, the forward one alone, if it has a dropout. f32 only.
void fuse_training_attention(Trace& graph);

// Norms whose statistics a backward pass reads: with the activation that follows, and the sum before that; and the gradients
// of both as one. f32 only.
void fuse_training_norms(Trace& graph);

// The gradient of a bias before a norm that takes the mean away again (batch and instance norms): zero, where op by op gives
// rounding errors. After fuse_training_norms.
void drop_zero_sums(Trace& graph);

// Softmax, cross entropy and class sums of one pair of logits and labels, and their gradients: one op each way.
void fuse_loss_heads(Trace& graph);

// Convolution, linear layer or group norm, then a sum with a tensor of the same shape, then an
// activation: one op of runtime/ops/fused.h. f32 only.
void fuse_epilogues(Trace& graph);

// A linear layer without bias and of few inputs whose result is copied with its last two axes exchanged: the product that makes
// the copy, W^T x^T.
void turn_products(Trace& graph);

// Neighbouring parts of one tensor that are joined again: a view of it, where that is one piece of memory.
void drop_joins_of_neighbours(Trace& graph);

// Two tensors joined along their channels for convolutions and their weight gradients alone, whose kernels can read both
// where they lie: after fuse_epilogues.
void fuse_concats(Trace& graph);

// Gradients of tensors that are no longer joined: two smaller data gradients in place of one that was cut in two. After
// fuse_concats.
void split_joined_gradients(Trace& graph);

// The sum of a convolution's data gradient with another gradient, or of a transposed convolution with another tensor, becomes
// part of the convolution. After split_joined_gradients.
void fuse_conv_sums(Trace& graph);

// A norm of a convolution's output: the convolution adds up its moments while it stores, and where in inference one convolution
// alone reads the norm's output, that one normalises as it reads, so that the norm makes no pass over memory. After
// fuse_concats.
void fuse_norms(Trace& graph);

// Under bf16, values between kernels that read and write bf16 as readily as f32 (Kernel::narrows) become bf16: after all
// else. What a product would round anyway loses nothing; what a norm or a sum reads is rounded once more.
void narrow_values(Trace& graph);

}  // namespace voxlab::plan
