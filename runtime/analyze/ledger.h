// Ledger: what a network costs, one row a call, booked under the network's own names. Works on meta, so a
// paper-size network is counted in milliseconds, and on real tensors, where it also times each call.
#pragma once

#include <string>
#include <vector>

#include "runtime/ops/call.h"

namespace voxlab {

struct LedgerRow {
  std::string scope;
  std::string_view op;
  std::string attributes;    // of the op, as text
  std::string kernel;        // implementation name; "meta" or "view" when nothing ran
  Cost cost;
  int64_t in_elements = 0;   // of the first input
  int64_t out_elements = 0;  // of the first output
  bool affine = false;       // a norm with weight and bias
  bool backward = false;     // called while a gradient was being computed
  double seconds = 0;        // 0 unless timed
  int64_t memory_after = 0;  // bytes of live tensors after the call
};

class Ledger final : public Observer {
 public:
  enum class Timing : uint8_t { off, on };
  explicit Ledger(Timing timing = Timing::off) : timing_(timing) {}
  void on_call(const CallEvent& event) override;
  bool wants_time() const override { return timing_ == Timing::on; }
  void begin_backward() { backward_ = true; }

  const std::vector<LedgerRow>& rows() const { return rows_; }

 private:
  Timing timing_;
  bool backward_ = false;
  std::vector<LedgerRow> rows_;
};

// ---- counting rules ----

enum class Quantity : uint8_t { macs, flops, in_elements, out_elements };

// One line of a rule: `factor` times a quantity of every call of an op. `condition` narrows it.
struct CountLine {
  enum class When : uint8_t { always, affine, plain } when = When::always;
  std::string_view op;
  Quantity quantity = Quantity::macs;
  double factor = 1;
};

struct CountRule {
  std::string_view name;
  std::string_view convention;  // one sentence for table headers
  std::vector<CountLine> lines;  // empty: `quantity` of every op
  Quantity quantity = Quantity::macs;
};

const std::vector<CountRule>& count_rules();
const CountRule& count_rule(std::string_view name);  // Error naming the rules there are
double count(const CountRule& rule, const LedgerRow& row);

struct CountTotal {
  std::string scope;
  double count = 0;
  int64_t bytes = 0;
  double seconds = 0;
};

// Totals by the first `depth` names of the scope, in order of first appearance; depth 0 is one total.
std::vector<CountTotal> totals(const std::vector<LedgerRow>& rows, const CountRule& rule, int depth);

}  // namespace voxlab
