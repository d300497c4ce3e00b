#include "runtime/autograd/tape.h"

#include "runtime/core/scope.h"
#include "runtime/ops/binary.h"

namespace voxlab {
namespace {

// The op's gradient through its decomposition into simpler ops, for ops that declare no backward.
Tensors through_decomposition(const OpRecord& op, const void* attrs, const Tensors& in,
                              const Tensors& dout) {
  Tape inner;
  Tensors outputs;
  {
    const RecordTo to(&inner);
    for (const Tensor& t : in)
      if (t && is_floating(t.dtype())) inner.watch(t);
    outputs = op.decompose(attrs, in);
  }
  Tensors reached, cotangents;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!dout[i]) continue;
    reached.push_back(outputs[i]);
    cotangents.push_back(dout[i]);
  }
  return inner.gradient(reached, cotangents, in, true);
}

Tensors pick(const Tensors& all, uint32_t mask) {
  Tensors kept(all.size());
  for (size_t i = 0; i < all.size(); ++i)
    if (mask >> i & 1u) kept[i] = all[i];
  return kept;
}

}  // namespace

void Tape::watch(const Tensor& t) {
  if (t) watched_.insert(t.id());
}
void Tape::watch(const Tensors& all) {
  for (const Tensor& t : all) watch(t);
}

bool Tape::watches(const Tensors& in) const {
  for (const Tensor& t : in)
    if (watches(t)) return true;
  return false;
}

void Tape::record(const OpRecord& op, const std::shared_ptr<const void>& attrs, const Tensors& in,
                  const Tensors& out) {
  if (op.backward == nullptr && op.decompose == nullptr) return;  // argmax and the like: a constant
  Node node;
  node.name = op.name;
  node.op = &op;
  node.attrs = attrs;
  for (const Tensor& t : in) {
    node.in_ids.push_back(t.id());
    node.needs.push_back(watches(t));
    node.present.push_back(static_cast<bool>(t));
    node.in_metas.push_back(t ? t.meta() : Meta{Shape{0}});
  }
  for (const Tensor& t : out) {
    node.out_ids.push_back(t.id());
    node.out_metas.push_back(t.meta());
    if (is_floating(t.dtype())) watched_.insert(t.id());
  }
  const Saves saves = op.backward ? op.saves(attrs.get()) : Saves{.inputs = ~0u};
  node.saved_in = pick(in, saves.inputs);
  node.saved_out = pick(out, saves.outputs);
  node.scope = current_scope();
  nodes_.push_back(std::move(node));
}

void Tape::record_custom(std::string_view name, const Tensors& in, const Tensors& out, Backward backward) {
  Node node;
  node.name = name;
  for (const Tensor& t : in) {
    node.in_ids.push_back(t.id());
    node.needs.push_back(watches(t));
    node.present.push_back(static_cast<bool>(t));
    node.in_metas.push_back(t ? t.meta() : Meta{Shape{0}});
  }
  for (const Tensor& t : out) {
    node.out_ids.push_back(t.id());
    node.out_metas.push_back(t.meta());
    watched_.insert(t.id());
  }
  node.custom = std::move(backward);
  node.scope = current_scope();
  nodes_.push_back(std::move(node));
}

Tensors Tape::backward_of(const Node& node, const Tensors& dout) const {
  if (node.custom) return node.custom(dout);
  if (node.op->backward == nullptr)
    return through_decomposition(*node.op, node.attrs.get(), node.saved_in, dout);
  Saved saved(node.op->name, node.saved_in, node.saved_out, node.in_metas, node.out_metas, node.needs);
  saved.set_present(node.present);
  return node.op->backward(node.attrs.get(), saved, dout);
}

void Tape::accumulate(const Node& node, const Tensors& gradients, Cotangents& cotangents) const {
  if (gradients.size() > node.in_ids.size())
    fail(node.name, "backward returned " + std::to_string(gradients.size()) + " gradients for " +
                        std::to_string(node.in_ids.size()) + " inputs");
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (!gradients[i] || !node.needs[i]) continue;
    const Meta& wanted = node.in_metas[i];
    const Meta& got = gradients[i].meta();
    if (!(got.shape == wanted.shape) || got.dtype != wanted.dtype)
      fail(node.name, "gradient of input " + std::to_string(i) + " is " + got.to_string() + ", expected " +
                          wanted.to_string());
    Tensor& sum = cotangents[node.in_ids[i]];
    sum = sum ? add(sum, gradients[i]) : gradients[i];
  }
}

Tensors Tape::gradient(const Tensors& outputs, const Tensors& cotangents_of_outputs, const Tensors& wrt,
                       bool keep) {
  const Autocast off(DType::f32);
  Recorder* outer = current_recorder() == this && !keep ? nullptr : current_recorder();
  const RecordTo to(outer);
  Cotangents cotangents;
  for (size_t i = 0; i < outputs.size(); ++i) {
    Tensor& sum = cotangents[outputs[i].id()];
    sum = sum ? add(sum, cotangents_of_outputs[i]) : cotangents_of_outputs[i];
  }
  std::unordered_set<uint64_t> wanted;
  for (const Tensor& t : wrt) wanted.insert(t.id());

  for (size_t at = nodes_.size(); at-- > 0;) {
    // The tape may be recording the very ops below (keep): nodes_ can grow, so work on a copy.
    Node node = keep ? nodes_[at] : std::move(nodes_[at]);
    if (!keep) nodes_.pop_back();
    Tensors dout(node.out_ids.size());
    bool reached = false;
    for (size_t i = 0; i < dout.size(); ++i) {
      const auto found = cotangents.find(node.out_ids[i]);
      if (found == cotangents.end()) continue;
      dout[i] = found->second;
      reached = true;
      if (!wanted.contains(node.out_ids[i])) cotangents.erase(found);
    }
    if (!reached) continue;
    const ScopePath scope(node.scope);
    accumulate(node, backward_of(node, dout), cotangents);
  }
  Tensors result;
  for (const Tensor& t : wrt) {
    const auto found = cotangents.find(t.id());
    result.push_back(found == cotangents.end() ? Tensor() : found->second);
  }
  return result;
}

Tensors Tape::gradient(const Tensor& loss, const Tensors& wrt) {
  if (loss.numel() != 1) fail("gradient", "the loss must have one element, got " + loss.meta().to_string());
  return gradient({loss}, {Tensor::full(loss.shape(), 1, loss.dtype(), loss.device())}, wrt);
}

int64_t Tape::saved_bytes() const {
  std::unordered_set<const Storage*> seen;
  int64_t bytes = 0;
  for (const Node& node : nodes_)
    for (const Tensors* saved : {&node.saved_in, &node.saved_out})
      for (const Tensor& t : *saved)
        if (t && seen.insert(t.storage().get()).second) bytes += t.storage()->bytes();
  return bytes;
}

}  // namespace voxlab
