// Plan: the fixed-shape fast path for inference. A forward pass is traced once, rewritten into fewer ops,
// given one block of memory, and bound to prepared kernels; running it is then a walk over a list.
#pragma once

#include <map>

#include "runtime/ops/kernel.h"
#include "runtime/plan/trace.h"

namespace voxlab {

using Forward = std::function<Tensors(const Tensor& x)>;

class Plan {
 public:
  // Traces `forward` on x, which it runs once; `traced` gets the outputs of that run. Parameters are taken as
  // they are now: train, then plan. The kernels keep the arithmetic that is current now.
  Plan(const Forward& forward, const Tensor& x, Tensors* traced = nullptr);

  // The same as forward(x), for an x of the same shape and dtype; Error otherwise.
  Tensors operator()(const Tensor& x);

  int64_t arena_bytes() const { return arena_bytes_; }  // of all intermediate values together
  size_t steps() const { return steps_.size(); }

 private:
  // Where a value lies: in the arena, in the input or an output of the run, or in a constant.
  struct Place {
    enum class Root : uint8_t { arena, input, output, constant, none } root = Root::none;
    int64_t offset = 0;              // bytes
    size_t index = 0;                // of the output
    std::byte* constant = nullptr;
  };
  struct Step {
    TraceStep call;
    Kernel kernel;
    Metas in_metas, out_metas;
    std::vector<Place> in, out;
    int64_t live_bytes = 0;  // of the values in the arena that are still needed after it
  };
  class Planner;

  std::byte* address(const Place& place, std::byte* arena, const Tensor& x, const Tensors& outputs) const;
  void run(const Step& step, Pointers in, Pointers out, std::byte* workspace) const;

  Meta input_;
  Metas outputs_;
  std::vector<Step> steps_;
  Tensors kept_;  // constants
  int64_t arena_bytes_ = 0, workspace_bytes_ = 0;
};

// A forward pass that plans itself for each shape, dtype and arithmetic that it meets.
class PlannedForward {
 public:
  explicit PlannedForward(Forward forward) : forward_(std::move(forward)) {}
  Tensors operator()(const Tensor& x);

 private:
  Forward forward_;
  std::map<std::vector<int64_t>, Plan> plans_;
};

}  // namespace voxlab
