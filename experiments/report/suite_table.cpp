#include "experiments/report/suite_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "experiments/report/published_rows.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

constexpr std::array<FigureColumn, 15> figure_columns = {{
    {"params", "parameters (M)", 1e-6, 2, "million", "params_M"},
    {"macs", "MACs (G)", 1e-9, 2, "giga MACs", "flops_G"},
    {"latency", "latency (ms)", 1e3, 1, "ms", ""},
    {"train_step", "training step (ms)", 1e3, 1, "ms", ""},
    {"train_time", "training (min)", 1.0 / 60, 1, "min", ""},
    {"data_wait", "waiting for data (%)", 100, 2, "percent", ""},
    {"memory", "peak memory (MiB)", 1.0 / (1 << 20), 0, "MiB", ""},
    {"train_memory", "training memory (MiB)", 1.0 / (1 << 20), 0, "MiB", ""},
    {"dice", "Dice (%)", 100, 2, "percent", "dice_mean"},
    {"jaccard", "Jaccard (%)", 100, 2, "percent", ""},
    {"hd95", "HD95 (mm)", 1, 2, "mm", "hd95"},
    {"assd", "ASSD (mm)", 1, 2, "mm", ""},
    {"hd95_voxels", "HD95 (voxels)", 1, 2, "voxel", "hd95"},
    {"assd_voxels", "ASSD (voxels)", 1, 2, "voxel", ""},
    {"loss", "last loss", 1, 4, "", ""},
}};

struct Row {
  std::vector<std::string> labels;  // of the row axes
  std::string key;                  // their values, joined by '/'
  std::map<std::string, std::vector<Figure>> figures;
  int64_t runs = 0, finished = 0, failed = 0;
};

std::vector<Row> collect_rows(const Suite& suite, std::span<const SweepCell> cells,
                              const std::filesystem::path& runs) {
  std::vector<Row> rows;
  for (const SweepCell& cell : cells) {
    Row row;
    for (const AxisValue& axis : cell.axes) {
      const auto& wanted = suite.table.rows;
      if (std::find(wanted.begin(), wanted.end(), axis.path) == wanted.end()) continue;
      const bool named = suite.labels.count(axis.path + "." + axis.value) > 0;
      row.labels.push_back(named ? axis.label : axis.value);
    }
    row.key = row_key(suite, cell);
    auto found =
        std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.key == row.key; });
    if (found == rows.end()) found = rows.insert(rows.end(), std::move(row));
    ++found->runs;
    const RunFolder folder(runs, cell.id);
    const RunState state = folder.state();
    found->failed += state == RunState::failed;
    if (state != RunState::finished) continue;
    ++found->finished;
    for (const auto& [name, figure] : folder.results()) found->figures[name].push_back(figure);
  }
  return rows;
}

Cell own_cell(const Row& row, const FigureColumn& column, std::set<std::string>& sources) {
  const auto found = row.figures.find(std::string(column.name));
  if (found == row.figures.end()) return Cell::of("");
  const Figure figure = over_runs(found->second);
  if (!figure.source.empty()) sources.insert(fmt::format("{}: {}", column.title, figure.source));
  return Cell::of(in_unit(figure, column), column.decimals);
}

std::vector<Column> columns_of(const Suite& suite, const PublishedRows& published,
                               const std::vector<const FigureColumn*>& figures) {
  std::vector<Column> columns;
  for (const SweepAxis& axis : suite.axes) {
    const auto& rows = suite.table.rows;
    if (std::find(rows.begin(), rows.end(), axis.path) != rows.end())
      columns.push_back({axis.path, axis.path.substr(axis.path.rfind('.') + 1), false});
  }
  columns.push_back({"runs", "runs", true});
  for (const FigureColumn* each : figures) {
    columns.push_back({std::string(each->name), std::string(each->title), true});
    if (published.has(*each))
      columns.push_back({fmt::format("{}.published", each->name), "published", true});
  }
  return columns;
}

}  // namespace

const FigureColumn& figure_column(std::string_view name, std::string_view where) {
  std::vector<std::string_view> known;
  for (const FigureColumn& column : figure_columns) {
    if (column.name == name) return column;
    known.push_back(column.name);
  }
  fail(where, unknown_text("column", name, "", known));
}

Figure in_unit(Figure figure, const FigureColumn& column) {
  figure.value *= column.factor;
  if (figure.spread) *figure.spread *= column.factor;
  figure.unit = column.unit;
  return figure;
}

Figure over_runs(std::span<const Figure> figures) {
  VOXLAB_CHECK(!figures.empty());
  Figure out = figures[0];
  const bool same = std::all_of(figures.begin(), figures.end(), [&](const Figure& each) {
    return each.kind == FigureKind::computed && each.value == out.value;
  });
  if (figures.size() == 1 || same) return out;
  const auto n = static_cast<double>(figures.size());
  double mean = 0, square = 0;
  for (const Figure& each : figures) mean += each.value / n;
  for (const Figure& each : figures) square += (each.value - mean) * (each.value - mean);
  std::set<std::string> sources;
  for (const Figure& each : figures) sources.insert(each.source);
  out.value = mean;
  out.spread = std::sqrt(square / (n - 1));
  out.n = static_cast<int64_t>(figures.size());
  out.source = fmt::format("{}{}mean ± standard deviation over n runs", fmt::join(sources, " | "),
                           *sources.rbegin() == "" ? "" : "; ");
  return out;
}

Table suite_table(const Suite& suite, std::span<const SweepCell> cells,
                  const TableSources& sources) {
  const TableSpec& spec = suite.table;
  std::vector<const FigureColumn*> figures;
  for (const std::string& name : spec.columns)
    figures.push_back(&figure_column(name, suite.path.string() + ": table.columns"));
  const PublishedRows published(suite, sources.published);
  const std::vector<Row> rows = collect_rows(suite, cells, sources.runs);
  published.check_rows(cells);
  Table table(spec.title, columns_of(suite, published, figures));
  std::set<std::string> notes;
  for (const Row& row : rows) {
    std::vector<Cell> line;
    for (const std::string& label : row.labels) line.push_back(Cell::of(label));
    line.push_back(Cell::of(fmt::format("{}/{}{}", row.finished, row.runs,
                                        row.failed ? fmt::format(", {} failed", row.failed) : "")));
    for (const FigureColumn* column : figures) {
      line.push_back(own_cell(row, *column, notes));
      if (published.has(*column)) line.push_back(published.cell(row.key, *column));
    }
    table.add_row(std::move(line));
  }
  for (const std::string& note : notes) table.add_note(note);
  return table;
}

}  // namespace voxlab
