// `voxlab sweep`.
#include "experiments/run/sweep.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "experiments/config/bind.h"
#include "experiments/config/emit.h"
#include "experiments/main/options.h"
#include "experiments/run/experiment.h"

namespace voxlab {
namespace {

void print_cells(std::span<const SweepCell> cells, const SweepOptions& options) {
  if (options.common.json) {
    nlohmann::json out = nlohmann::json::array();
    for (const SweepCell& cell : cells)
      out.push_back({{"id", cell.id},
                     {"label", cell.label()},
                     {"state", to_string(RunFolder(options.runs, cell.id).state())},
                     {"config", to_json(cell.config)}});
    std::cout << out.dump(2) << '\n';
    return;
  }
  std::vector<Column> columns = {
      {"index", "", true}, {"id", "id", false}, {"state", "state", false}};
  if (!cells.empty())
    for (const AxisValue& axis : cells[0].axes) columns.push_back({axis.path, axis.path, false});
  Table table(fmt::format("{}: {} cells", options.suite.string(), cells.size()), columns);
  for (size_t i = 0; i < cells.size(); ++i) {
    const RunState state = RunFolder(options.runs, cells[i].id).state();
    std::vector<Cell> row = {Cell::of(std::to_string(i + 1)), Cell::of(cells[i].id),
                             Cell::of(to_string(state))};
    for (const AxisValue& axis : cells[i].axes) row.push_back(Cell::of(axis.value));
    table.add_row(std::move(row));
  }
  std::cout << print(table, TableFormat::text);
}

std::string event_line(const SweepEvent& event) {
  const std::string head = fmt::format("[{}/{}] {}  {}", event.index + 1, event.total,
                                       event.cell->id, event.cell->label());
  if (event.kind == SweepEvent::Kind::start) {
    switch (event.before) {
      case RunState::partial:
        return head + ": goes on";
      case RunState::failed:
        return head + ": failed before, tried again";
      default:
        return head;
    }
  }
  switch (event.outcome) {
    case CellOutcome::done:
      return head + ": done";
    case CellOutcome::skipped:
      return head + ": finished already";
    case CellOutcome::busy:
      return head + ": another process is at it";
    case CellOutcome::failed:
      break;
  }
  return head + ": FAILED: " + event.error;
}

void report_event(const SweepEvent& event, const CommonOptions& common) {
  const bool bad = event.kind == SweepEvent::Kind::end && event.outcome == CellOutcome::failed;
  if (common.json) {
    nlohmann::json line = {{"cell", event.index + 1},
                           {"of", event.total},
                           {"id", event.cell->id},
                           {"label", event.cell->label()}};
    constexpr const char* outcomes[] = {"done", "skipped", "failed", "busy"};
    line["event"] =
        event.kind == SweepEvent::Kind::start ? "start" : outcomes[static_cast<int>(event.outcome)];
    if (bad) line["error"] = event.error;
    std::cout << line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
  } else if (bad || !common.quiet) {
    std::cerr << event_line(event) << std::endl;
  }
}

}  // namespace

void add_sweep(CLI::App& app, int& code) {
  auto options = std::make_shared<SweepOptions>();
  CLI::App* command =
      app.add_subcommand("sweep", "Run every cell of a suite that is not finished yet");
  command->footer(
      "A suite is a configuration with [axes]; every combination of their values is a cell, and "
      "its run\n"
      "stands in RUNS/<id>, the id being a hash of the cell's resolved configuration. Finished "
      "cells are\n"
      "skipped, stopped ones go on, failed ones are tried again. Exit code 1 when any cell "
      "failed.");
  command->add_option("suite", options->suite, "TOML file")->required()->check(CLI::ExistingFile);
  add_set(*command, options->set);
  command->add_option("--runs", options->runs, "Folder of all runs")->capture_default_str();
  command->add_flag("-n,--dry-run", options->dry_run,
                    "Print the cells and their states, run nothing");
  add_common(*command, options->common);
  command->callback([options, &code] {
    options->common.apply();
    code = command_sweep(*options);
  });
}

int command_sweep(const SweepOptions& options) {
  const Suite suite = load_suite(options.suite, options.set);
  const std::vector<SweepCell> cells = expand(suite, resolve_experiment);
  if (options.dry_run) {
    print_cells(cells, options);
    return exit_done;
  }
  const RunOptions run_options = {.quiet = options.common.quiet, .json = options.common.json};
  const SweepSummary summary = run_sweep(
      cells, options.runs,
      [&](const SweepCell& cell, RunFolder& folder) {
        return run_experiment(read_config<ExperimentConfig>(cell.config), folder, run_options);
      },
      [&](const SweepEvent& event) { report_event(event, options.common); });
  if (!options.common.quiet && !options.common.json)
    std::cerr << fmt::format("{} done, {} finished before, {} failed, {} busy elsewhere\n",
                             summary.done, summary.skipped, summary.failed, summary.busy);
  return summary.failed == 0 ? exit_done : exit_negative;
}

}  // namespace voxlab
