// TorchObjects: the fixed list of globals that torch.save writes for tensors, and what each means.
// All else is refused by name. Nothing imports, calls or looks up anything by a name from the file.
#pragma once

#include "runtime/io/pickle.h"

namespace voxlab {

class TorchObjects final : public PickleHost {
 public:
  using PickleHost::PickleHost;

  NodeId global(std::string_view module, std::string_view name) override;
  NodeId call(NodeId callable, NodeId arguments) override;
  void set_state(NodeId object, NodeId state) override;
  NodeId persistent(NodeId id) override;

 private:
  NodeId make_ordered_dict(NodeId arguments);
  NodeId make_set(NodeId arguments);
  NodeId make_bytes(NodeId arguments);
  NodeId encode(NodeId arguments);
  NodeId make_size(NodeId arguments);
  NodeId make_device(NodeId arguments);
  NodeId make_numpy_dtype(NodeId arguments);
  NodeId make_numpy_scalar(NodeId arguments);
  NodeId rebuild_tensor(NodeId arguments, size_t least, size_t most, bool has_dtype);
  NodeId rebuild_parameter(NodeId arguments, size_t count);
  StorageView legacy_view(NodeId metadata, const StorageView& whole, int64_t element_bytes) const;

  // Checked access to the arguments of a call; `what` names the call in errors.
  NodeId argument(NodeId arguments, size_t i, ValueKind kind, const char* what) const;
  NodeId opaque_argument(NodeId arguments, size_t i, OpaqueKind kind, const char* what) const;
  void check_count(NodeId arguments, size_t least, size_t most, const char* what) const;
  std::vector<int64_t> integers(NodeId tuple, const char* what) const;
};

}  // namespace voxlab
