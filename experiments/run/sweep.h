// Suites: a TOML file with axes becomes an ordered list of cells, each a whole configuration; a
// sweep runs the cells that are not finished yet.
//
//   extends = "base.toml"                          # any configuration
//   [axes]
//   "unetr_pp.attention" = ["none", "both"]        # the first axis varies slowest
//   seed = [0, 1]
//   [labels]
//   "unetr_pp.attention.both" = "EPA (paper)"      # text for a value of an axis
//   [table]                                        # what `voxlab table` prints: see TableSpec
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "experiments/config/node.h"
#include "experiments/run/record.h"

namespace voxlab {

struct SweepAxis {
  std::string path;
  Position at;
  std::vector<ConfigNode> values;
};

// Published rows beside ours: rows[value of the row's axes, joined by '/'] = method in the table of
// the paper, columns[our column] = key in that row where the default key is not the right one ("":
// no such figure), factors[our column] = 100 where the paper prints 0.874 for our 87.4 %. A method
// may stand in another table of the file, "TABLE: METHOD", and end in " [KEY=VALUE]" where several
// rows have its name.
struct PublishedSpec {
  std::string table;  // "unetr_pp/ablation_epa": file and table id; empty: none
  std::map<std::string, std::string> rows;
  std::map<std::string, std::string> columns;
  std::map<std::string, double> factors;
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("table", s.table);
    v("rows", s.rows);
    v("columns", s.columns);
    v("factors", s.factors);
  }
};

struct TableSpec {
  std::string title;
  std::vector<std::string> rows;  // axes; the remaining ones are repetitions. Default: all but seed
  std::vector<std::string> columns;  // names of figures
  std::string rule = "mac";          // how --dry-run counts operations: a rule of `voxlab count`
  PublishedSpec published;
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("title", s.title);
    v("rows", s.rows);
    v("columns", s.columns);
    v("rule", s.rule);
    v("published", s.published);
  }
};

struct Suite {
  std::filesystem::path path;
  ConfigNode base;  // without axes, labels and table
  std::vector<SweepAxis> axes;
  std::map<std::string, std::string> labels;
  TableSpec table;
};

// Reads a suite; `overrides` are KEY=VALUE texts that every cell gets. Errors have
// file:line:column.
Suite load_suite(const std::filesystem::path& path, std::span<const std::string> overrides = {});

struct AxisValue {
  std::string path;
  std::string value;  // as text: "both", "0"
  std::string label;  // from [labels], else "path=value" with the last key of the path
};

struct SweepCell {
  std::string id;
  ConfigNode config;  // resolved
  std::vector<AxisValue> axes;
  int64_t seed = 0;
  std::string label() const;  // "EPA (paper), seed=0"
};

// Reads a configuration strictly and writes all of it back: resolve<ExperimentConfig> of bind.h.
using Resolver = std::function<ConfigNode(const ConfigNode&)>;

// Pure: the same file gives the same cells in the same order. Error for an empty axis, an axis that
// the configuration does not have, a value that it refuses, or two cells that are the same
// configuration.
std::vector<SweepCell> expand(const Suite& suite, const Resolver& resolver);

enum class CellOutcome : uint8_t { done, skipped, failed, busy };

struct SweepEvent {
  enum class Kind : uint8_t { start, end };
  Kind kind = Kind::start;
  int64_t index = 0, total = 0;
  const SweepCell* cell = nullptr;
  RunState before = RunState::absent;  // what the folder held
  CellOutcome outcome = CellOutcome::done;
  std::string error;
};

struct SweepSummary {
  int64_t done = 0, skipped = 0, failed = 0, busy = 0;
  bool complete() const { return failed == 0 && busy == 0; }
};

// Runs what is not finished, in order. A cell that throws is recorded as failed and the next one
// runs; the next call tries it again. A partial one is handed to run_cell, which goes on from its
// checkpoint.
SweepSummary run_sweep(std::span<const SweepCell> cells, const std::filesystem::path& runs_root,
                       const std::function<Results(const SweepCell&, RunFolder&)>& run_cell,
                       const std::function<void(const SweepEvent&)>& report);

}  // namespace voxlab
