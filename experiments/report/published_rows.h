// The published side of a suite: which figure of which paper's table stands beside a row.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "experiments/report/published.h"
#include "experiments/report/table.h"
#include "experiments/run/sweep.h"

namespace voxlab {

struct FigureColumn;

// The values of a cell's row axes, joined by '/': the keys of [table.published.rows].
std::string row_key(const Suite& suite, const SweepCell& cell);

class PublishedRows {
 public:
  // `root`: results/published. A suite without [table.published] reads nothing.
  PublishedRows(const Suite& suite, std::filesystem::path root);

  // Error for a row of [table.published.rows] that no cell has: it is misspelt.
  void check_rows(std::span<const SweepCell> cells) const;

  // Whether the suite has published figures for a column at all.
  bool has(const FigureColumn& column) const;

  struct Entry {
    bool named = false;            // the suite names the paper's row
    std::optional<Figure> figure;  // in the unit of the column; empty: found in no source
    int decimals = 0;              // as printed there
  };
  Entry find(const std::string& row, const FigureColumn& column) const;
  Cell cell(const std::string& row, const FigureColumn& column) const;

 private:
  const PublishedTable& table(const std::string& id) const;
  std::string key(const FigureColumn& column) const;

  const Suite& suite_;
  std::filesystem::path root_;
  mutable std::map<std::string, PublishedTable> tables_;  // read when first asked for
};

}  // namespace voxlab
