// The contract between ops and backends: a kernel is prepared from attributes and metas, then run on
// pointers. Preparing is cheap by rule, but for constants that a kernel brings to a form of its own; a kernel never keeps
// pointers between runs.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/ops/op.h"

namespace voxlab {

struct TensorDesc {
  Meta meta;
  Strides strides{};
  bool present = true;  // false: an optional input that was left out
  const std::byte* constant = nullptr;  // where its values lie now, if they never change
  bool leaves = false;  // an output of the plan, that nobody reads before it ends

  const Shape& shape() const { return meta.shape; }
  DType dtype() const { return meta.dtype; }
  int64_t numel() const { return meta.numel(); }
  int64_t size(int axis) const { return meta.shape[axis]; }
  int64_t stride(int axis) const { return strides[static_cast<size_t>(meta.shape.index(axis))]; }
};

using Descs = std::span<const TensorDesc>;
using Pointers = std::span<std::byte* const>;  // nullptr for an absent input

struct Kernel {
  std::string name;           // what a profile row prints: "cpu.conv.avx512"
  int64_t workspace = 0;      // bytes of scratch handed to run
  std::function<void(Pointers in, Pointers out, std::byte* workspace)> run;
  // Where it was prepared for f32 activations, it may be for bf16 in any of their places, and costs no more.
  bool narrows = false;
  // What the op fuses takes this kernel passes of its own: plans leave the parts apart.
  bool extra_passes = false;
  // Constant inputs that it keeps in a form of its own: run does not read them, and their places in `in` may be null.
  std::vector<size_t> kept = {};
};

using Prepare = Kernel (*)(const void* attrs, Descs in, Descs out);

// A backend's kernel for an op on a device. A prepare that returns a Kernel without `run` declines
// (a dtype it does not have): the reference kernel then runs, and the profile row says so.
void install_kernel(Device device, const OpRecord& op, Prepare prepare);
Prepare find_kernel(Device device, const OpRecord& op);

// The device's kernel, or the reference one where that declines. Error when there is neither.
Kernel prepare_kernel(const OpRecord& op, const void* attrs, Device device, Descs in, Descs out);

}  // namespace voxlab
