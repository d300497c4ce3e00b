// `voxlab evaluate`.
#include "experiments/run/evaluate.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "experiments/main/options.h"
#include "experiments/metrics/score_json.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"

namespace voxlab {
namespace {

Cell mean_cell(const Mean& mean, const char* unit, double factor, int decimals) {
  if (mean.used == 0) return Cell::of(fmt::format("undefined in all {}", mean.total));
  Figure figure{.value = mean.mean * factor, .unit = unit, .n = mean.used};
  if (mean.used > 1) figure.spread = mean.deviation * factor;
  return Cell::of(std::move(figure), decimals);
}

void print_summary(const Rule& rule, const std::vector<CaseScores>& cases) {
  Table table(fmt::format("{} case(s), rule {}", cases.size(), rule.name),
              {{"label", "label", false},
               {"dice", "Dice (%)"},
               {"jaccard", "Jaccard (%)"},
               {"hd95", "HD95"},
               {"assd", "ASSD"}});
  const Summary summary = summarise(cases);
  const auto add_row = [&](const std::string& name, const std::map<std::string, Mean>& figures) {
    table.add_row({Cell::of(name), mean_cell(figures.at("dice"), "percent", 100, 2),
                   mean_cell(figures.at("jaccard"), "percent", 100, 2),
                   mean_cell(figures.at("hd95"), "", 1, 2),
                   mean_cell(figures.at("assd"), "", 1, 2)});
  };
  for (const RegionSummary& region : summary.regions) add_row(region.region, region.figures);
  add_row("mean over labels", summary.over_regions);
  table.add_note(fmt::format("rule {}: {}", rule.name, rule.source));
  table.add_note(fmt::format(
      "distances in {}; ± is the standard deviation over the n cases (last row: over labels)",
      cases.front().spacing.size() == 2 ? "pixels" : to_string(rule.spacing)));
  std::cout << print(table, TableFormat::text) << '\n';
}

}  // namespace

void add_evaluate(CLI::App& app, int& code) {
  auto options = std::make_shared<EvaluateOptions>();
  CLI::App* command = app.add_subcommand("evaluate", "Score label volumes or pictures against references");
  command->footer(
      "Prints Dice, Jaccard, HD95 and ASSD per class, each under its rule for empty masks and "
      "spacing.\n"
      "Folders are matched by file name; a reference without a prediction is an error.");
  command->add_option("prediction", options->prediction, "Label volume (NIfTI) or picture (PNG), or a folder of them")
      ->required()
      ->check(CLI::ExistingPath);
  command->add_option("reference", options->reference, "True labels, likewise")
      ->required()
      ->check(CLI::ExistingPath);
  command->add_option("--rule", options->rules, "Metric preset (repeatable); default: strict-mm")
      ->take_all()
      ->expected(1);
  command
      ->add_option("--labels", options->labels,
                   "Labels to score, e.g. 1,2,3; default: all that occur")
      ->delimiter(',');
  command->add_option("-o,--output", options->output, "Write every case's figures as JSON");
  add_common(*command, options->common);
  command->callback([options, &code] {
    options->common.apply();
    code = command_evaluate(*options);
  });
}

int command_evaluate(const EvaluateOptions& options) {
  std::vector<Rule> rules;
  for (const std::string& name : options.rules) rules.push_back(metric_rule(name));
  if (rules.empty()) rules.push_back(metric_rules().front());
  std::vector<std::string> unmatched;
  const std::vector<LabelPair> pairs =
      match_labels(options.prediction, options.reference, unmatched);
  for (const std::string& file : unmatched)
    std::cerr << "voxlab: warning: " << file << " has no reference and is left out\n";
  const std::vector<int64_t> labels = options.labels.empty() ? labels_in(pairs) : options.labels;
  if (labels.empty())
    fail(options.reference.string(), "holds no label but 0; name those to score by --labels");
  const auto scores = evaluate(pairs, label_regions(labels), rules);
  nlohmann::json report = nlohmann::json::array();
  for (size_t r = 0; r < rules.size(); ++r) report.push_back(score_report(rules[r], scores[r]));
  if (!options.output.empty()) {
    AtomicFile file(options.output);
    file.write(report.dump(2) + "\n");
    file.commit();
  }
  if (options.common.json) {
    std::cout << report.dump(2) << '\n';
  } else {
    for (size_t r = 0; r < rules.size(); ++r) print_summary(rules[r], scores[r]);
  }
  return exit_done;
}

}  // namespace voxlab
