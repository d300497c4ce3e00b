// `voxlab train`.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "experiments/config/bind.h"
#include "experiments/config/emit.h"
#include "experiments/config/parse.h"
#include "experiments/main/options.h"
#include "experiments/report/suite_table.h"
#include "experiments/run/experiment.h"
#include "runtime/core/error.h"
#include "runtime/runtime.h"

namespace voxlab {
namespace {

void print_results(const RunFolder& folder, bool as_json) {
  const Results results = folder.results();
  if (as_json) {
    std::cout
        << nlohmann::json{{"run", folder.path().string()}, {"results", to_json(results)}}.dump(2)
        << '\n';
    return;
  }
  Table table(folder.path().string(),
              {{"figure", "figure", false}, {"value", "", true}, {"source", "source", false}});
  for (const auto& [name, figure] : results) {
    const FigureColumn& column = figure_column(name, "result");
    Figure shown = figure;
    shown.value *= column.factor;
    if (shown.spread) *shown.spread *= column.factor;
    table.add_row(
        {Cell::of(column.title), Cell::of(shown, column.decimals), Cell::of(figure.source)});
  }
  std::cout << print(table, TableFormat::text);
  if (std::filesystem::exists(folder.file("prediction.png")))
    std::cout << "picture (image, truth, prediction): " << folder.file("prediction.png").string()
              << '\n';
}

}  // namespace

void add_train(CLI::App& app, int& code) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command =
      app.add_subcommand("train", "Train one configuration; a run that was stopped goes on");
  command->footer(
      "The run's folder is RUNS/<id>, the id being a hash of the resolved configuration: "
      "config.toml,\n"
      "record.json, steps.jsonl, metrics.json, result.json and checkpoints. A finished run is left "
      "as\n"
      "it is. Exit code 1 when training failed.");
  command->add_option("config", options->config, "TOML file")->required()->check(CLI::ExistingFile);
  add_set(*command, options->set);
  command->add_option("--runs", options->runs, "Folder of all runs")->capture_default_str();
  command->add_flag("--again", options->again, "Start over, even when the run is finished");
  command->add_flag("--dry-run", options->dry_run, "Print the resolved configuration and its id");
  add_common(*command, options->common);
  command->callback([options, &code] {
    options->common.apply();
    code = command_train(*options);
  });
}

int command_train(const TrainOptions& options) {
  ConfigNode node = load_config(options.config);
  for (const std::string& each : options.set) apply_override(node, each);
  const ConfigNode resolved = resolve_experiment(node);
  const std::string id = content_id(resolved);
  if (options.dry_run) {
    std::cout << fmt::format("# {}\n{}", (options.runs / id).string(), to_toml(resolved));
    return exit_done;
  }
  RunFolder folder(options.runs, id);
  if (!folder.lock()) fail(folder.path().string(), "another process is working in this folder");
  if (options.again) folder.clear();
  if (folder.state() == RunState::finished) {
    if (!options.common.quiet)
      std::cerr << folder.path().string() << ": finished already (--again starts over)\n";
    print_results(folder, options.common.json);
    return exit_done;
  }
  const auto config = read_config<ExperimentConfig>(resolved);
  resolve(config.train.precision);  // Error, not a failed run, where this machine cannot do it
  folder.begin(resolved, config.seed, options.config.stem().string());
  try {
    folder.finish(run_experiment(config, folder,
                                 {.quiet = options.common.quiet, .json = options.common.json}));
  } catch (const std::exception& error) {
    folder.fail(error.what());
    std::cerr << "voxlab: " << folder.path().string() << ": " << error.what() << '\n';
    return exit_negative;
  }
  print_results(folder, options.common.json);
  return exit_done;
}

}  // namespace voxlab
