// The unit of activation recomputation.
#pragma once

#include <functional>
#include <string_view>

#include "runtime/core/tensor.h"

namespace voxlab::nn {

// A block of a network: body(x) under its name. When the current tape recomputes, only x is kept for the backward
// pass, which runs the body again (autograd's checkpoint): capture by value.
Tensor run_block(std::string_view name, const std::function<Tensor(const Tensor&)>& body, const Tensor& x);

}  // namespace voxlab::nn
