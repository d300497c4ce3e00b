#include "experiments/report/plan_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "experiments/config/bind.h"
#include "experiments/config/emit.h"
#include "experiments/report/published_rows.h"
#include "experiments/run/count.h"
#include "experiments/run/train_config.h"

namespace voxlab {
namespace {

constexpr std::string_view costs_of_a_plan[] = {"params", "macs", "memory", "train_memory"};

Results cost(const ExperimentConfig& config, const CountRule& rule) {
  const NetworkCount inference = count_network(config.net, CountMode::inference);
  const NetworkCount step = count_network(config.net, CountMode::training_step, config.train.batch, DType::f32,
                                         config.train.recompute);
  double operations = 0;
  for (const LedgerRow& row : inference.rows) operations += count(rule, row);
  const auto computed = [](double value, const char* unit, std::string source) {
    return Figure{
        .value = value, .unit = unit, .kind = FigureKind::computed, .source = std::move(source)};
  };
  return {{"params",
           computed(static_cast<double>(inference.parameters), "", "elements of trained tensors")},
          {"macs", computed(operations, "MAC",
                            fmt::format("inference, batch 1; {}: {}", rule.name, rule.convention))},
          {"memory", computed(static_cast<double>(inference.peak_bytes), "B",
                              "inference, batch 1, f32: most bytes of tensors alive at once")},
          {"train_memory",
           computed(static_cast<double>(step.peak_bytes), "B",
                    fmt::format("training step, batch {}, f32: likewise", config.train.batch))}};
}

// The columns that have a published figure at all, those of the plan first.
std::vector<const FigureColumn*> published_columns(const Suite& suite, const PublishedRows& rows) {
  std::vector<const FigureColumn*> columns;
  const std::string where = suite.path.string() + ": table.columns";
  const auto add = [&](std::string_view name) {
    const FigureColumn& column = figure_column(name, where);
    if (rows.has(column) && std::find(columns.begin(), columns.end(), &column) == columns.end())
      columns.push_back(&column);
  };
  for (std::string_view name : costs_of_a_plan) add(name);
  for (const std::string& name : suite.table.columns) add(name);
  return columns;
}

bool contains(const std::vector<const FigureColumn*>& columns, const FigureColumn& column) {
  return std::find(columns.begin(), columns.end(), &column) != columns.end();
}

bool is_cost(const FigureColumn& column) {
  return std::find(std::begin(costs_of_a_plan), std::end(costs_of_a_plan), column.name) !=
         std::end(costs_of_a_plan);
}

}  // namespace

std::vector<Results> cell_costs(const Suite& suite, std::span<const SweepCell> cells) {
  const CountRule& rule = count_rule(suite.table.rule);
  std::map<std::string, Results> known;
  std::vector<Results> costs;
  for (const SweepCell& cell : cells) {
    const auto config = read_config<ExperimentConfig>(cell.config);
    const std::string key = content_id(to_node(config.net)) + std::to_string(config.train.batch);
    auto found = known.find(key);
    if (found == known.end()) found = known.emplace(key, cost(config, rule)).first;
    costs.push_back(found->second);
  }
  return costs;
}

Table plan_table(const Suite& suite, std::span<const SweepCell> cells,
                 std::span<const Results> costs, const TableSources& sources) {
  const PublishedRows rows(suite, sources.published);
  const auto published = published_columns(suite, rows);
  if (!published.empty()) rows.check_rows(cells);
  std::vector<Column> columns = {
      {"index", "", true}, {"id", "id", false}, {"state", "state", false}, {"cell", "cell", false}};
  for (std::string_view name : costs_of_a_plan) {
    const FigureColumn& column = figure_column(name, "plan");
    columns.push_back({std::string(name), std::string(column.title)});
    if (contains(published, column))
      columns.push_back({fmt::format("{}.published", name), "published"});
  }
  for (const FigureColumn* column : published)
    if (!is_cost(*column))
      columns.push_back(
          {fmt::format("{}.published", column->name), fmt::format("{}, published", column->title)});

  Table table(fmt::format("{}: {} cells", suite.path.string(), cells.size()), columns);
  std::set<std::string> notes;
  for (size_t i = 0; i < cells.size(); ++i) {
    const RunState state = RunFolder(sources.runs, cells[i].id).state();
    const std::string row = row_key(suite, cells[i]);
    std::vector<Cell> line = {Cell::of(std::to_string(i + 1)), Cell::of(cells[i].id),
                              Cell::of(to_string(state)), Cell::of(cells[i].label())};
    for (std::string_view name : costs_of_a_plan) {
      const FigureColumn& column = figure_column(name, "plan");
      const Figure& figure = costs[i].at(std::string(name));
      notes.insert(fmt::format("{}: {}", column.title, figure.source));
      line.push_back(Cell::of(in_unit(figure, column), column.decimals));
      if (contains(published, column)) line.push_back(rows.cell(row, column));
    }
    for (const FigureColumn* column : published)
      if (!is_cost(*column)) line.push_back(rows.cell(row, *column));
    table.add_row(std::move(line));
  }
  for (const std::string& note : notes) table.add_note(note);
  return table;
}

nlohmann::json plan_json(const Suite& suite, std::span<const SweepCell> cells,
                         std::span<const Results> costs, const TableSources& sources) {
  const PublishedRows rows(suite, sources.published);
  const auto published = published_columns(suite, rows);
  if (!published.empty()) rows.check_rows(cells);
  nlohmann::json out = nlohmann::json::array();
  for (size_t i = 0; i < cells.size(); ++i) {
    nlohmann::json printed = nlohmann::json::object();
    for (const FigureColumn* column : published) {
      const PublishedRows::Entry entry = rows.find(row_key(suite, cells[i]), *column);
      const std::string name(column->name);
      if (entry.named)
        printed[name] = entry.figure ? to_json(Results{{name, *entry.figure}})[name] : nullptr;
    }
    out.push_back({{"id", cells[i].id},
                   {"label", cells[i].label()},
                   {"state", to_string(RunFolder(sources.runs, cells[i].id).state())},
                   {"config", to_json(cells[i].config)},
                   {"figures", to_json(costs[i])},
                   {"published", printed}});
  }
  return out;
}

}  // namespace voxlab
