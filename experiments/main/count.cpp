// `voxlab count`.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "experiments/main/net_options.h"
#include "experiments/main/options.h"
#include "experiments/report/published.h"
#include "experiments/run/count.h"

namespace voxlab {
namespace {

// Where the papers print the cost of a released network.
struct CostRow {
  const char *net, *variant, *table, *method;
};
constexpr CostRow cost_rows[] = {{"unetr_pp", "synapse", "unetr_pp/synapse_main", "UNETR++"},
                                 {"unetr_pp", "tumor", "unetr_pp/brats_efficiency", "UNETR++"}};

void print_published(const NetConfig& config, const std::filesystem::path& root) {
  if (!std::filesystem::is_directory(root)) return;
  for (const CostRow& row : cost_rows) {
    if (config.net != row.net || config.variant != row.variant) continue;
    const PublishedTable table = load_published(root, row.table);
    const auto parameters = table.find(row.method, "params_M"), cost = table.find(row.method, "flops_G");
    if (parameters && cost)
      std::cout << fmt::format("  published         {:>12} M parameters, {} G ({})\n", parameters->value, cost->value,
                               cost->source);
  }
}

}  // namespace

void add_count(CLI::App& app, int& code) {
  auto options = std::make_shared<CountOptions>();
  CLI::App* command = app.add_subcommand("count", "Parameters, MACs, FLOPs and memory of a network, without running it");
  add_net(*command, options->net);
  std::string rules;
  for (const CountRule& rule : count_rules())
    rules += fmt::format("\n  {:<8} {}", rule.name, rule.convention);
  command->footer("Everything is computed from shapes at the network's own input size, batch 1. Rules:" + rules);
  command->add_option("--rule", options->rule, "How operations are counted, see below")->capture_default_str();
  command->add_flag("--layers", options->layers, "One row a layer");
  command->add_option("--depth", options->depth, "Names of a layer's path that make a row")
      ->check(CLI::Range(1, 32))
      ->capture_default_str();
  command->add_option("--published", options->published, "Folder of the papers' numbers")->capture_default_str();
  add_common(*command, options->common);
  command->callback([options, &code] {
    options->common.apply();
    code = command_count(*options);
  });
}

int command_count(const CountOptions& o) {
  const NetConfig config = resolve_net(o.net);
  const CountRule& rule = count_rule(o.rule);
  std::vector<NetworkCount> counts;
  for (CountMode mode : {CountMode::inference, CountMode::training_forward, CountMode::training_step})
    counts.push_back(count_network(config, mode));
  const auto total = [&](const NetworkCount& c) { return totals(c.rows, rule, 0).at(0).count; };
  const auto mib = [](int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };

  if (o.common.json) {
    nlohmann::json out{{"net", config.net}, {"variant", config.variant}, {"rule", rule.name},
                       {"convention", rule.convention}, {"parameters", counts[0].parameters},
                       {"buffers", counts[0].buffers}};
    for (const NetworkCount& c : counts)
      out[std::string(to_string(c.mode))] = {{"count", total(c)}, {"peak_bytes", c.peak_bytes},
                                             {"saved_bytes", c.saved_bytes}};
    for (const CountTotal& t : totals(counts[0].rows, rule, o.depth))
      out["layers"].push_back({{"layer", t.scope}, {"count", t.count}, {"bytes", t.bytes}});
    std::cout << out.dump(2) << '\n';
    return exit_done;
  }
  std::cout << fmt::format("{} {}: computed from shapes, batch 1, f32\n  parameters        {:>15} (and {} in buffers)\n"
                           "  rule {}: {}\n",
                           config.net, config.variant, counts[0].parameters, counts[0].buffers, rule.name, rule.convention);
  for (const NetworkCount& c : counts)
    std::cout << fmt::format("  {:<17} {:>12.4f} G   peak memory {:9.1f} MiB{}\n", to_string(c.mode), total(c) * 1e-9,
                             mib(c.peak_bytes),
                             c.saved_bytes ? fmt::format(" ({:.1f} MiB saved for backward)", mib(c.saved_bytes)) : "");
  print_published(config, o.published);
  if (!o.layers) return exit_done;
  const auto steps = totals(counts[2].rows, rule, o.depth);
  std::cout << fmt::format("\n  {:<36} {:>13} {:>14} {:>14}\n", "layer", "parameters", "inference M", "train step M");
  const auto parameters = parameters_by_scope(config, o.depth);
  for (const CountTotal& t : totals(counts[0].rows, rule, o.depth)) {
    int64_t own = 0;
    for (const ParameterTotal& p : parameters)
      if (p.scope == t.scope) own += p.parameters;
    double step = 0;
    for (const CountTotal& s : steps)
      if (s.scope == t.scope) step += s.count;
    std::cout << fmt::format("  {:<36} {:>13} {:>14.3f} {:>14.3f}\n", t.scope.empty() ? "(between layers)" : t.scope, own,
                             t.count * 1e-6, step * 1e-6);
  }
  return exit_done;
}

}  // namespace voxlab
