// Reverse-mode differentiation. A Tape records the ops that touch watched tensors while it is current;
// gradient() walks it backwards, calling each op's backward, which is itself made of ops.
#pragma once

#include <functional>
#include <unordered_map>
#include <unordered_set>

#include "runtime/ops/call.h"

namespace voxlab {

class Tape final : public Recorder {
 public:
  // recompute: of each block (nn::run_block) only the input is kept, and backward runs it again.
  explicit Tape(bool recompute = false) : recompute_(recompute) {}
  bool recompute() const { return recompute_; }

  // Starts watching a tensor: ops on it, and on what comes of it, are recorded.
  void watch(const Tensor& t);
  void watch(const Tensors& all);

  // Records onto this tape for the guard's lifetime.
  [[nodiscard]] RecordTo recording() { return RecordTo(this); }

  // d(loss)/d(each of wrt), undefined where loss does not depend on it. `loss` must have one element.
  // Consumes the tape: saved tensors are freed as the walk passes them.
  Tensors gradient(const Tensor& loss, const Tensors& wrt);

  // The same with given cotangents for several outputs. With keep = true the tape stays usable, and the
  // gradient's own ops are recorded by whatever tape is current (for second derivatives).
  Tensors gradient(const Tensors& outputs, const Tensors& cotangents, const Tensors& wrt,
                   bool keep = false);

  int64_t saved_bytes() const;  // bytes that the recorded ops keep for backward, each storage once
  size_t size() const { return nodes_.size(); }

  // A step with its own backward rule: used by checkpointing. `backward` gets the outputs' cotangents
  // (undefined where there is none) and returns one gradient per input.
  using Backward = std::function<Tensors(const Tensors& dout)>;
  void record_custom(std::string_view name, const Tensors& in, const Tensors& out, Backward backward);

  bool watches(const Tensors& in) const override;
  void record(const OpRecord& op, const std::shared_ptr<const void>& attrs, const Tensors& in,
              const Tensors& out) override;
  bool watches(const Tensor& t) const { return t && watched_.contains(t.id()); }

 private:
  struct Node {
    std::string_view name;
    const OpRecord* op = nullptr;
    std::shared_ptr<const void> attrs;
    std::vector<uint64_t> in_ids, out_ids;
    std::vector<bool> needs, present;
    Tensors saved_in, saved_out;
    Metas in_metas, out_metas;
    std::string scope;
    Backward custom;
  };
  using Cotangents = std::unordered_map<uint64_t, Tensor>;

  Tensors backward_of(const Node& node, const Tensors& dout) const;
  void accumulate(const Node& node, const Tensors& gradients, Cotangents& cotangents) const;

  bool recompute_;
  std::unordered_set<uint64_t> watched_;
  std::vector<Node> nodes_;
};

// Runs `body` without recording and keeps only its inputs: backward runs it again (Chen et al. 2016,
// "Training deep nets with sublinear memory cost"). Tensors of the current tape that body touches besides
// `inputs` (parameters) get their gradients too. Same scope, same dropout numbers, same autocast: same bits. `body`
// outlives the call: capture by value.
Tensors checkpoint(std::string_view name, const std::function<Tensors(const Tensors&)>& body,
                   const Tensors& inputs);

// Whether a body runs for the second time: side effects, such as running statistics, belong to the first.
bool recomputing();

}  // namespace voxlab
