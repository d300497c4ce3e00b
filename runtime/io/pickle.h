// The pickle machine: runs the opcodes that checkpoints need and builds nodes of a Document. It
// imports nothing; what a global, a call or a persistent id means, a PickleHost decides.
#pragma once

#include <string>
#include <string_view>

#include "runtime/io/document.h"

namespace voxlab {

// Meaning of the opcodes that would run code in Python. The base class refuses all of them.
class PickleHost {
 public:
  explicit PickleHost(Document& document) : document_(document) {}
  virtual ~PickleHost() = default;

  virtual NodeId global(std::string_view module, std::string_view name);
  virtual NodeId call(NodeId callable, NodeId arguments);     // REDUCE, NEWOBJ
  virtual void set_state(NodeId object, NodeId state);        // BUILD
  virtual NodeId persistent(NodeId id);                       // BINPERSID

 protected:
  Document& document_;
};

// Reads one pickle, from PROTO to STOP, and returns its root. `in` is left behind STOP.
NodeId read_pickle(ByteReader& in, Document& document, PickleHost& host);

}  // namespace voxlab
