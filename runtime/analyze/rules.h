// Counting rules: what one operation is. Each counting tool of the field has its own answer; a rule states
// it as data, so that two rules can be subtracted and the difference explained. docs/counting.md has them in
// words, with the tools' source files.
#pragma once

#include "runtime/analyze/ledger.h"

namespace voxlab {

// What a line of a rule multiplies.
enum class Quantity : uint8_t {
  macs,             // multiply-adds; of a transposed convolution at its input positions
  macs_at_output,   // a transposed convolution taken for an ordinary one: whole kernel at every output position
  flops,            // 2 per multiply-add, plus elementwise work
  in_elements,      // of the first input
  out_elements,     // of the first output
  biased_elements,  // of the first output when a bias is added
  bias_elements,    // of the bias itself, once a call
};

enum class When : uint8_t { always, affine, plain, biased };  // affine, plain: norms with and without weights

// Where a tool looks: at layers (hooks on modules), at functions (patched; a layer calls its function too), or
// at every operator that is called in the end.
enum class Seen : uint8_t { layer, function, call };

// One line of a rule: `factor` times a quantity of every call of an op. All lines that fit a call add up.
struct CountLine {
  std::string_view op;  // "conv", or with the variant "unary.gelu"; "" is every op
  Quantity quantity = Quantity::macs;
  double factor = 1;
  When when = When::always;
  Seen seen = Seen::call;
};

struct CountRule {
  std::string_view name;
  std::string_view tool;        // program and version; "" for our own rules
  std::string_view convention;  // one sentence for table headers
  std::vector<CountLine> lines;
  bool forward_only = true;  // the tool runs no backward pass
  std::vector<std::string_view> within = {};  // where the tool looks, by first names of layers; empty: all
  bool traced = false;       // reads a traced graph, which holds only what the returned outputs need
  // A layer that the module tree holds under n names counts n to this power, for lines seen at layers.
  int names_power = 0;
  bool module_parameters = false;  // its parameter figure leaves out what no counted layer holds
};

const std::vector<CountRule>& count_rules();
const CountRule& count_rule(std::string_view name);  // Error naming the rules there are

double quantity(Quantity q, const LedgerRow& row);
bool applies(const CountLine& line, const LedgerRow& row);
bool covers(const CountRule& rule, const LedgerRow& row);  // the pass and the layer, not the op
double count(const CountRule& rule, const LedgerRow& row);

struct CountTotal {
  std::string scope;
  double count = 0;
  int64_t bytes = 0;
  double seconds = 0;
};

// Totals by the first `depth` names of the scope, in order of first appearance; depth 0 is one total.
std::vector<CountTotal> totals(const std::vector<LedgerRow>& rows, const CountRule& rule, int depth);
double total(const std::vector<LedgerRow>& rows, const CountRule& rule);

// The first `depth` names of a path; "" for depth 0.
std::string first_names(const std::string& path, int depth);

// Operators that the rule gives nothing, by PyTorch's names, with the number of calls; most first. Views,
// copies and what the tool never sees are left out.
struct Uncounted {
  std::string name;
  int64_t calls = 0;
};
std::vector<Uncounted> uncounted(const std::vector<LedgerRow>& rows, const CountRule& rule);

// ---- the difference of two rules ----

// One part of it: a kind of operation, how either rule counts it, and what that makes.
struct Cause {
  std::string text;   // "transposed convolutions: 1 per multiply-add -> 1 per tap at output positions"
  double amount = 0;  // second rule less first
};

// The causes add up to the difference of the totals exactly; the largest first.
std::vector<Cause> explain(const std::vector<LedgerRow>& rows, const CountRule& from, const CountRule& to);

}  // namespace voxlab
