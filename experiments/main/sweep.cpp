// `voxlab sweep`.
#include "experiments/run/sweep.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "experiments/config/bind.h"
#include "experiments/main/options.h"
#include "experiments/report/plan_table.h"
#include "experiments/run/experiment.h"

namespace voxlab {
namespace {

void print_plan(Suite suite, std::span<const SweepCell> cells, const SweepOptions& options) {
  const std::vector<Results> costs = cell_costs(suite, cells);
  if (!std::filesystem::is_directory(options.published)) {
    if (!suite.table.published.table.empty())
      std::cerr << "voxlab: warning: no folder " << options.published.string()
                << ", so no published numbers\n";
    suite.table.published = {};
  }
  const TableSources sources{.runs = options.runs, .published = options.published};
  if (options.common.json) {
    std::cout << plan_json(suite, cells, costs, sources).dump(2) << '\n';
  } else {
    std::cout << print(plan_table(suite, cells, costs, sources), TableFormat::text);
  }
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
                    "Print the cells, what they cost and what is published, run nothing");
  command->add_option("--published", options->published, "Folder of published numbers (--dry-run)")
      ->capture_default_str();
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
    print_plan(suite, cells, options);
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
