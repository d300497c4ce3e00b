#include "runtime/nn/block.h"

#include "runtime/autograd/tape.h"
#include "runtime/core/scope.h"

namespace voxlab::nn {

Tensor run_block(std::string_view name, const std::function<Tensor(const Tensor&)>& body, const Tensor& x) {
  const auto* tape = dynamic_cast<const Tape*>(current_recorder());
  if (tape != nullptr && tape->recompute())
    return checkpoint(name, [body](const Tensors& in) { return Tensors{body(in[0])}; }, {x})[0];
  const Scope scope(name);
  return body(x);
}

}  // namespace voxlab::nn
