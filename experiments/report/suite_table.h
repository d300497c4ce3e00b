// The table of a suite: one row a value of the row axes, repetitions (seeds) put together,
// published figures in columns of their own.
#pragma once

#include <filesystem>
#include <span>

#include "experiments/report/table.h"
#include "experiments/run/sweep.h"

namespace voxlab {

struct TableSources {
  std::filesystem::path runs;       // results/runs
  std::filesystem::path published;  // results/published
};

// Runs that are not finished leave their cells empty; the column "runs" says how many are.
Table suite_table(const Suite& suite, std::span<const SweepCell> cells,
                  const TableSources& sources);

// Several runs of the same thing as one figure: the mean, with the sample standard deviation as
// spread. One run keeps its own spread; computed figures that agree stay as they are.
Figure over_runs(std::span<const Figure> figures);

// How a figure of Results is shown: title with unit, factor from its base unit, digits, and the key
// that carries it in published tables ("" if none). Error with the nearest name for an unknown one.
struct FigureColumn {
  std::string_view name, title;
  double factor = 1;
  int decimals = 3;
  std::string_view unit, published_key;
};
const FigureColumn& figure_column(std::string_view name, std::string_view where);
Figure in_unit(Figure figure, const FigureColumn& column);  // from the base unit

}  // namespace voxlab
