// Activations that rounding carries over a kink (of ReLU, leaky ReLU, hardswish): where that happens a float32
// gradient differs from the exact one by far more than rounding, in every parameter before it.
#pragma once

#include <string>
#include <vector>

#include "experiments/golden/golden.h"
#include "runtime/ops/call.h"

namespace voxlab {

// Notes between which kinks every input of such a function lies while it is observing.
class KinkWatch : public Observer {
 public:
  void on_call(const CallEvent& event) override;
  const std::vector<std::vector<uint8_t>>& pieces() const { return pieces_; }

 private:
  std::vector<std::vector<uint8_t>> pieces_;  // one entry a call, in order
};

// How many values lie on other pieces in the two runs of one network; -1 when the calls are not the same.
int64_t flipped(const KinkWatch& a, const KinkWatch& b);

// What a figure of the gradient may be off by when there are such values, and what its row then says.
double kink_limit(const GoldenBound& bound);
std::string kink_note(int64_t flipped);

}  // namespace voxlab
