// What made a value, step by step: for rewrites that are found from their end.
#pragma once

#include <algorithm>
#include <set>

#include "runtime/ops/copy.h"
#include "runtime/ops/view.h"
#include "runtime/plan/rewriter.h"

namespace voxlab::plan {

// Walks from a value to what made it, past copies, and remembers the steps.
class Pattern {
 public:
  explicit Pattern(const Rewriter& r) : r_(r) {}

  // The step of this op that made the value as its output `output`, or null.
  template <class Made>
  const TraceStep* made_by(int value, size_t output = 0) {
    value = uncopied(value);
    const int step = step_of(value);
    if (step == absent || !is<Made>(at(step)) || at(step).outputs[output] != value) return nullptr;
    taken_.insert(step);
    return &at(step);
  }

  // What the value is a copy of, however often.
  int uncopied(int value) {
    for (int step = step_of(value); step != absent && is<Contiguous>(at(step)); step = step_of(value)) {
      taken_.insert(step);
      value = at(step).inputs[0];
    }
    return value;
  }

  // The input of this permutation that made the value, or absent.
  int permuted(int value, const std::vector<int>& axes) {
    const TraceStep* step = made_by<Permute>(value);
    return step != nullptr && attrs<Permute>(*step).axes == axes ? step->inputs[0] : absent;
  }

  // Whether the steps' values, but those of `end`, are read by these steps alone.
  bool closed(int end) const {
    return std::all_of(taken_.begin(), taken_.end(), [&](int step) {
      const auto& made = at(step).outputs;
      return step == end || std::all_of(made.begin(), made.end(), [&](int value) {
        const auto& users = r_.users(value);
        return std::all_of(users.begin(), users.end(), [&](int user) { return taken_.contains(user); });
      });
    });
  }

  void take(int step) { taken_.insert(step); }
  const std::set<int>& taken() const { return taken_; }

 private:
  int step_of(int value) const { return value == absent ? absent : r_.maker(value); }
  const TraceStep& at(int step) const { return r_.graph.steps[static_cast<size_t>(step)]; }

  const Rewriter& r_;
  std::set<int> taken_;
};

}  // namespace voxlab::plan
