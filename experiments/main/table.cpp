// `voxlab table`.
#include <CLI/CLI.hpp>
#include <iostream>

#include "experiments/main/options.h"
#include "experiments/report/suite_table.h"
#include "experiments/run/experiment.h"
#include "runtime/io/file.h"

namespace voxlab {

void add_table(CLI::App& app, int& code) {
  auto options = std::make_shared<TableOptions>();
  CLI::App* command = app.add_subcommand(
      "table", "Print the table of a suite from its runs, beside published numbers");
  command->footer(
      "Every number says what it is: measured here (with spread and n), computed from shapes (=), "
      "or\n"
      "published ([k], with its source below). Repetitions such as seeds are put together. Cells "
      "without\n"
      "a finished run stay empty.");
  command->add_option("suite", options->suite, "TOML file")->required()->check(CLI::ExistingFile);
  add_set(*command, options->set);
  add_choice(*command, "-f,--format", options->format, "How to print");
  command->add_option("-o,--output", options->output, "Write there instead of standard output");
  command->add_option("--runs", options->runs, "Folder of all runs")->capture_default_str();
  command->add_option("--published", options->published, "Folder of published numbers")
      ->capture_default_str();
  add_common(*command, options->common);
  command->callback([options, &code] {
    options->common.apply();
    if (options->common.json) options->format = TableFormat::json;
    code = command_table(*options);
  });
}

int command_table(const TableOptions& options) {
  const Suite suite = load_suite(options.suite, options.set);
  const std::vector<SweepCell> cells = expand(suite, resolve_experiment);
  const Table table =
      suite_table(suite, cells, {.runs = options.runs, .published = options.published});
  const std::string text = print(table, options.format);
  if (options.output.empty()) {
    std::cout << text;
  } else {
    AtomicFile file(options.output);
    file.write(text);
    file.commit();
  }
  return exit_done;
}

}  // namespace voxlab
