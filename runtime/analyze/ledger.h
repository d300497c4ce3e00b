// Ledger: what a network costs, one row a call, booked under the network's own names. Works on meta, so a
// paper-size network is counted in milliseconds, and on real tensors, where it also times each call.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/ops/call.h"

namespace voxlab {

// The parts of a training step; an inference is all forward.
enum class Part : uint8_t { forward, loss, backward };

// How the code that a counting tool reads writes a call: as a module (nn.Conv3d), as a function of torch or
// torch.nn.functional, or as an operator or method (a @ b, a.softmax(-1)) or several smaller steps.
enum class Written : uint8_t { layer, function, expression };

struct LedgerRow {
  std::string scope;
  std::string_view op;
  std::string variant;     // what counting tools tell apart: "gelu", "add", "instance", "bilinear2d"; or ""
  std::string attributes;  // of the op, as text
  std::string kernel;      // implementation name; "meta" or "view" when nothing ran
  Cost cost;
  DType dtype = DType::f32;  // of the first input
  int64_t in_elements = 0;   // of the first input
  int64_t out_elements = 0;  // of the first output
  int64_t in_positions = 0;  // the same without the channels
  int64_t out_positions = 0;
  int64_t bias_elements = 0;  // of a convolution's or linear layer's bias
  bool affine = false;        // a norm with weight and bias
  Part part = Part::forward;
  bool returned = true;                   // a returned output depends on it; false after mark_returned found none
  Written written = Written::layer;       // matmul, binary ops and softmax: expression; resize: function
  int64_t module_names = 1;               // under how many names the module tree holds the layer
  double seconds = 0;                     // 0 unless timed
  int64_t memory_after = 0;               // bytes of live tensors after the call
  std::vector<uint64_t> inputs, outputs;  // identities of the tensors

  bool backward() const { return part == Part::backward; }
  bool is_view() const { return cost.bytes == 0; }
  bool is(std::string_view name) const;  // "unary", or with the variant "unary.gelu"
};

class Ledger final : public Observer {
 public:
  enum class Timing : uint8_t { off, on };
  explicit Ledger(Timing timing = Timing::off) : timing_(timing) {}
  void on_call(const CallEvent& event) override;
  bool wants_time() const override { return timing_ == Timing::on; }
  // Of the calls from now on, but for those that say themselves that they are backward.
  void begin(Part part) { part_ = part; }

  const std::vector<LedgerRow>& rows() const { return rows_; }
  std::vector<LedgerRow> take_rows() { return std::move(rows_); }

 private:
  Timing timing_;
  Part part_ = Part::forward;
  std::vector<LedgerRow> rows_;
};

// Sets `returned` of every row: whether one of the tensors with these identities depends on it. A traced
// graph holds no other calls.
void mark_returned(std::vector<LedgerRow>& rows, std::span<const uint64_t> outputs);

}  // namespace voxlab
