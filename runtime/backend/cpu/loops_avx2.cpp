// All loops of this folder built for avx2; flags come from dense/isa_flags.cmake.
#include "runtime/backend/cpu/attention_impl.h"
#include "runtime/backend/cpu/axis_impl.h"
#include "runtime/backend/cpu/dropout_impl.h"
#include "runtime/backend/cpu/elementwise_impl.h"
#include "runtime/backend/cpu/loss_head_impl.h"
#include "runtime/backend/cpu/loss_impl.h"
#include "runtime/backend/cpu/norm_scaling_impl.h"
#include "runtime/backend/cpu/resize_impl.h"
#include "runtime/backend/cpu/training_attention_impl.h"
#include "runtime/backend/cpu/update_impl.h"

namespace voxlab::cpu {

constexpr Loops loops_avx2 = [] {
  Loops table = {};
  set_elementwise(table);
  set_reduce(table);
  set_norms(table);
  set_norm_scaling(table);
  set_axes(table);
  set_resize(table);
  set_losses(table);
  set_loss_heads(table);
  set_updates(table);
  set_dropout(table);
  set_attention(table);
  set_training_attention(table);
  return table;
}();

}  // namespace voxlab::cpu
