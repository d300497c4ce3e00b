// The table of all kernels of one instruction set. Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/dense/channel_scale_impl.h"
#include "runtime/backend/cpu/dense/copy_impl.h"
#include "runtime/backend/cpu/dense/depthwise_impl.h"
#include "runtime/backend/cpu/dense/depthwise_plane_impl.h"
#include "runtime/backend/cpu/dense/tile_impl.h"
#include "runtime/backend/cpu/dense/winograd_impl.h"

namespace voxlab::cpu {
namespace {

constexpr KernelTable make_table() {
  KernelTable table = {};
  table.width = vec_width;
  set_tiles(table);
  set_depthwise(table);
  set_channel_scale(table);
  table.pick_lanes = pick_lanes;
  table.transpose = transpose_block;
  table.widen = widen_bf16;
  table.narrow = narrow_bf16;
  table.add = add_arrays;
  table.finish = finish_array;
  set_depthwise_plane(table);
  set_winograd(table);
  return table;
}

}  // namespace
}  // namespace voxlab::cpu
