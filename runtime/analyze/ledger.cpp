#include "runtime/analyze/ledger.h"

#include <unordered_set>

namespace voxlab {
namespace {

// The value of `key` in an op's attributes as text, up to the next blank; "" when it has no such key.
std::string attribute(const std::string& attributes, std::string_view key) {
  for (size_t at = 0; at < attributes.size();) {
    const size_t end = std::min(attributes.find(' ', at), attributes.size());
    if (attributes.compare(at, key.size(), key) == 0 && attributes[at + key.size()] == '=')
      return attributes.substr(at + key.size() + 1, end - at - key.size() - 1);
    at = end + 1;
  }
  return "";
}

int64_t positions(const Meta& m) { return m.shape.rank() == 0 || m.shape[-1] == 0 ? 1 : m.numel() / m.shape[-1]; }

std::string variant_of(const CallEvent& e, const std::string& attributes) {
  if (e.op.name == "group_norm") return e.out[1].shape[-1] == e.in[0].shape[-1] ? "instance" : "group";
  if (e.op.name == "resize") {
    const int axes = e.in[0].shape.rank() - 2;
    if (attribute(attributes, "mode") == "nearest") return "nearest" + std::to_string(axes) + "d";
    // nn.UpsamplingBilinear2d, a class of its own, is the one with aligned corners.
    if (axes == 2) return attribute(attributes, "align_corners") == "true" ? "aligned_bilinear2d" : "bilinear2d";
    return axes == 3 ? "trilinear3d" : "linear1d";
  }
  return attribute(attributes, "kind");
}

Written usual_writing(std::string_view op) {
  if (op == "resize") return Written::function;
  for (std::string_view expression : {"matmul", "binary", "softmax", "reduce"})
    if (op == expression) return Written::expression;
  return Written::layer;
}

void append_ids(std::vector<uint64_t>& ids, const Tensors& tensors) {
  ids.reserve(tensors.size());
  for (const Tensor& t : tensors) ids.push_back(t.id());
}

}  // namespace

void Ledger::on_call(const CallEvent& e) {
  LedgerRow row;
  row.scope = e.scope;
  row.op = e.op.name;
  row.attributes = e.op.describe(e.attrs.get());
  row.variant = variant_of(e, row.attributes);
  row.written = usual_writing(row.op);
  row.kernel = e.kernel;
  if (e.op.view == nullptr) row.cost = e.op.cost(e.attrs.get(), e.in, e.out);
  if (!e.in.empty()) {
    row.dtype = e.in[0].dtype;
    row.in_elements = e.in[0].numel();
    row.in_positions = positions(e.in[0]);
  }
  if (!e.out.empty()) {
    row.out_elements = e.out[0].numel();
    row.out_positions = positions(e.out[0]);
  }
  const bool third = e.inputs.size() > 2 && static_cast<bool>(e.inputs[2]);
  if (third && (row.op == "conv" || row.op == "conv_transpose" || row.op == "linear"))
    row.bias_elements = e.inputs[2].numel();
  row.affine = e.inputs.size() > 1 && static_cast<bool>(e.inputs[1]);
  row.part = e.backward ? Part::backward : part_;
  row.seconds = e.seconds;
  row.memory_after = e.memory;
  append_ids(row.inputs, e.inputs);
  append_ids(row.outputs, e.outputs);
  rows_.push_back(std::move(row));
}

bool LedgerRow::is(std::string_view name) const {
  const size_t n = op.size();
  return name == op || (name.starts_with(op) && name.size() > n && name[n] == '.' && name.substr(n + 1) == variant);
}

void mark_returned(std::vector<LedgerRow>& rows, std::span<const uint64_t> outputs) {
  std::unordered_set<uint64_t> needed(outputs.begin(), outputs.end());
  for (size_t i = rows.size(); i-- > 0;) {
    LedgerRow& row = rows[i];
    row.returned = false;
    for (uint64_t id : row.outputs) row.returned |= needed.contains(id);
    if (row.returned) needed.insert(row.inputs.begin(), row.inputs.end());
  }
}

}  // namespace voxlab
