// Plan: the fixed-shape fast path. A forward pass or a training step is traced on shapes alone, rewritten into fewer ops,
// given one block of memory, and bound to prepared kernels; running it is then a walk over a list.
#pragma once

#include <map>

#include "runtime/ops/kernel.h"
#include "runtime/plan/trace.h"

namespace voxlab {

using Forward = std::function<Tensors(const Tensor& x)>;

class Plan {
 public:
  // Of `body` for inputs of these shapes and dtypes. What is no input is taken as it is now: for inference parameters are
  // constants, and a training step has them among its inputs. The kernels keep the arithmetic that is current now. The plan
  // lets go of body once that is traced, and of constants that its kernels do not read as they are: where nobody else holds
  // a network's parameters, their memory is free again.
  Plan(Body body, Metas inputs);

  // What body would return for these inputs, of the same shapes and dtypes; Error otherwise.
  Tensors operator()(const Tensors& inputs);

  int64_t arena_bytes() const { return arena_bytes_; }  // of all intermediate values together
  size_t steps() const { return steps_.size(); }

 private:
  // Where a value lies: in the arena, in the input or an output of the run, or in a constant.
  struct Place {
    enum class Root : uint8_t { arena, input, output, constant, none } root = Root::none;
    int64_t offset = 0;              // bytes
    size_t index = 0;                // of the input or output
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

  std::byte* address(const Place& place, std::byte* arena, const Tensors& inputs, const Tensors& outputs) const;
  void run(const Step& step, Pointers in, Pointers out, std::byte* workspace) const;

  Metas inputs_, outputs_;
  std::vector<Step> steps_;
  Tensors constants_;  // that kernels read
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
