// `voxlab count`.
#include "experiments/run/count.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "experiments/golden/count_table.h"
#include "experiments/main/net_options.h"
#include "experiments/main/options.h"
#include "experiments/report/published.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"

namespace voxlab {
namespace {

using nlohmann::json;

// Where the papers print the cost of a released network.
struct CostRow {
  const char *net, *variant, *table, *method;
};
constexpr CostRow cost_rows[] = {{"unetr_pp", "synapse", "unetr_pp/synapse_main", "UNETR++"},
                                 {"unetr_pp", "tumor", "unetr_pp/brats_efficiency", "UNETR++"},
                                 {"ux_net", "flare", "ux_net/efficiency", "3D UX-Net"},
                                 {"levit_unet", "384", "levit_unet/efficiency_published", "LeViT-UNet-384"},
                                 {"dae_former", "synapse", "dae_former/synapse_main_v3", "DAE-Former"},
                                 {"dae_former", "synapse_as_written", "dae_former/synapse_main_v3", "DAE-Former"},
                                 {"brats_unet", "bl_in", "unetr_pp/brats_regions_followup", "nnUNet"}};

double giga(double count) { return count * 1e-9; }
double mib(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

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

json memory_json(const NetworkCount& c) {
  return {{"peak_bytes", c.peak_bytes},
          {"fixed_bytes", c.fixed_bytes},
          {"activation_bytes", c.peak_bytes - c.fixed_bytes},
          {"saved_bytes", c.saved_bytes}};
}

json to_json(const NetConfig& config, const std::vector<NetworkCount>& counts, const NetworkCount& shown,
             const CountRule& rule, const CountOptions& o) {
  const NetworkCount& first = counts.front();
  json out{{"net", config.net},
           {"variant", config.variant},
           {"rule", rule.name},
           {"tool", rule.tool},
           {"convention", rule.convention},
           {"parameters", first.parameters},
           {"unused_parameters", first.unused},
           {"shared_parameters", first.shared},
           {"reported_parameters", reported_parameters(first, rule)},
           {"buffers", first.buffers}};
  for (const NetworkCount& c : counts) {
    out[std::string(to_string(c.mode))] = memory_json(c);
    out[std::string(to_string(c.mode))]["count"] = total(c.rows, rule);
  }
  for (const CountTotal& t : totals(shown.rows, rule, o.depth))
    out["layers"].push_back({{"layer", t.scope}, {"count", t.count}, {"bytes", t.bytes}});
  out["not_counted"] = json::object();
  for (const Uncounted& u : uncounted(first.rows, rule)) out["not_counted"][u.name] = u.calls;
  return out;
}

void print_totals(const NetConfig& config, const std::vector<NetworkCount>& counts, const CountRule& rule) {
  const NetworkCount& first = counts.front();
  std::cout << fmt::format(
      "{} {}: computed from shapes, batch 1, f32\n  parameters        {:>15}: {} unused, {} read by "
      "several calls; {} more in buffers\n",
      config.net, config.variant, first.parameters, first.unused, first.shared, first.buffers);
  if (const int64_t reported = reported_parameters(first, rule); reported != first.parameters)
    std::cout << fmt::format("  as the tool says  {:>15}: parameters of the layers that it knows\n", reported);
  std::cout << fmt::format("  rule {}{}: {}\n", rule.name, rule.tool.empty() ? "" : fmt::format(" ({})", rule.tool),
                           rule.convention);
  for (const NetworkCount& c : counts) {
    std::cout << fmt::format("  {:<17} {:>12.4f} G   peak memory {:8.1f} MiB: {:.1f} fixed, {:.1f} activations",
                             to_string(c.mode), giga(total(c.rows, rule)), mib(c.peak_bytes), mib(c.fixed_bytes),
                             mib(c.peak_bytes - c.fixed_bytes));
    if (c.saved_bytes) std::cout << fmt::format("; {:.1f} saved for backward", mib(c.saved_bytes));
    std::cout << (c.mode == CountMode::training_step && rule.forward_only ? "; forward only\n" : "\n");
  }
  std::string left_out;
  for (const Uncounted& u : uncounted(first.rows, rule))
    left_out += fmt::format("{}{} {}", left_out.empty() ? "" : ", ", u.name, u.calls);
  if (!left_out.empty()) std::cout << "  not counted       " << left_out << '\n';
}

void print_layers(const NetConfig& config, const NetworkCount& shown, const NetworkCount& step, const CountRule& rule,
                  int depth) {
  std::cout << fmt::format("\n  {:<36} {:>13} {:>14} {:>14}\n", "layer", "parameters", "forward M", "train step M");
  const auto steps = totals(step.rows, rule, depth);
  const auto parameters = parameters_by_scope(config, depth);
  for (const CountTotal& t : totals(shown.rows, rule, depth)) {
    int64_t own = 0;
    for (const ParameterTotal& p : parameters)
      if (p.scope == t.scope) own += p.parameters;
    double whole_step = 0;
    for (const CountTotal& s : steps)
      if (s.scope == t.scope) whole_step += s.count;
    std::cout << fmt::format("  {:<36} {:>13} {:>14.3f} {:>14.3f}\n", t.scope.empty() ? "(between layers)" : t.scope,
                             own, t.count * 1e-6, whole_step * 1e-6);
  }
}

void print_explanation(const NetConfig& config, const NetworkCount& counted, const CountOptions& o) {
  const CountRule &from = count_rule(o.explain.at(0)), &to = count_rule(o.explain.at(1));
  const auto causes = explain(counted.rows, from, to);
  const double before = total(counted.rows, from), after = total(counted.rows, to);
  if (o.common.json) {
    json out{{"net", config.net}, {"variant", config.variant}, {"mode", to_string(counted.mode)},
             {"from", from.name}, {"from_count", before},      {"to", to.name},
             {"to_count", after}, {"causes", json::array()}};
    for (const Cause& c : causes) out["causes"].push_back({{"cause", c.text}, {"count", c.amount}});
    std::cout << out.dump(2) << '\n';
    return;
  }
  std::cout << fmt::format("{} {}, {}\n{:>14.4f} G  {}: {}\n", config.net, config.variant, to_string(counted.mode),
                           giga(before), from.name, from.convention);
  for (const Cause& c : causes) std::cout << fmt::format("{:>+14.4f} G  {}\n", giga(c.amount), c.text);
  std::cout << fmt::format("{:>14.4f} G  {}: {}\n", giga(after), to.name, to.convention);
}

void write_table(const CountOptions& o) {
  const std::string text = count_table(o.table);
  if (o.output.empty()) {
    std::cout << text;
    return;
  }
  AtomicFile file(o.output);
  file.write(text);
  file.commit();
}

}  // namespace

void add_count(CLI::App& app, int& code) {
  auto options = std::make_shared<CountOptions>();
  CLI::App* command =
      app.add_subcommand("count", "Parameters, MACs, FLOPs and memory of a network, without running it");
  add_net(*command, options->net);
  std::string rules;
  for (const CountRule& rule : count_rules()) rules += fmt::format("\n  {:<13} {}", rule.name, rule.convention);
  command->footer(
      "Everything is computed from shapes at the network's own input size, batch 1. Rules, each exactly\n"
      "in docs/counting.md:" +
      rules);
  command->add_option("--rule", options->rule, "How operations are counted, see below")->capture_default_str();
  command->add_option("--explain", options->explain, "Two rules, and what makes their difference")->expected(2);
  command->add_flag("--training", options->training, "Layers or explanation of the forward pass in training mode");
  command->add_flag("--recompute", options->recompute, "A training step that makes blocks' activations again");
  command->add_flag("--layers", options->layers, "One row a layer");
  command->add_option("--depth", options->depth, "Names of a layer's path that make a row")
      ->check(CLI::Range(1, 32))
      ->capture_default_str();
  command->add_option("--published", options->published, "Folder of the papers' numbers")->capture_default_str();
  command
      ->add_option("--table", options->table,
                   "Instead: every rule beside the tools' records (counts.json) in this folder, as Markdown")
      ->check(CLI::ExistingDirectory);
  command->add_option("-o,--output", options->output, "Where the table goes instead of standard output");
  add_common(*command, options->common);
  command->callback([options, &code] {
    options->common.apply();
    code = command_count(*options);
  });
}

int command_count(const CountOptions& o) {
  if (!o.table.empty()) {
    write_table(o);
    return exit_done;
  }
  const NetConfig config = resolve_net(o.net);
  if (!o.explain.empty()) {
    print_explanation(config, count_network(config, o.training ? CountMode::training_forward : CountMode::inference),
                      o);
    return exit_done;
  }
  const CountRule& rule = count_rule(o.rule);
  std::vector<NetworkCount> counts;
  for (CountMode mode : {CountMode::inference, CountMode::training_forward, CountMode::training_step})
    counts.push_back(count_network(config, mode, 1, DType::f32, o.recompute));
  const NetworkCount& shown = counts[o.training ? 1 : 0];
  if (o.common.json) {
    std::cout << to_json(config, counts, shown, rule, o).dump(2) << '\n';
    return exit_done;
  }
  print_totals(config, counts, rule);
  print_published(config, o.published);
  if (o.layers) print_layers(config, shown, counts[2], rule, o.depth);
  return exit_done;
}

}  // namespace voxlab
