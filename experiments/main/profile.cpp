// `voxlab profile`.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "experiments/main/net_options.h"
#include "experiments/main/options.h"
#include "experiments/run/machine.h"
#include "experiments/run/timing.h"
#include "runtime/analyze/ledger.h"
#include "runtime/core/error.h"
#include "runtime/runtime.h"

namespace voxlab {
namespace {

struct ProfileRow {
  std::string scope, op, kernel;
  bool backward = false;
  double seconds = 0;
  int64_t calls = 0;
  Cost cost;
};

std::string truncated(const std::string& scope, int depth) {
  size_t end = 0;
  for (int d = 0; d < depth && end != std::string::npos; ++d) end = scope.find('.', d == 0 ? 0 : end + 1);
  return depth == 0 ? "" : scope.substr(0, end);
}

// Rows of one layer (to `depth` names), op and kernel added up, the most expensive first.
std::vector<ProfileRow> summarise(const std::vector<LedgerRow>& rows, int depth, int64_t repeats) {
  std::map<std::string, ProfileRow> merged;
  for (const LedgerRow& row : rows) {
    if (row.kernel == "view") continue;
    const std::string scope = truncated(row.scope, depth);
    ProfileRow& sum = merged[scope + '\n' + std::string(row.op) + '\n' + row.kernel + (row.backward() ? "b" : "f")];
    sum.scope = scope;
    sum.op = row.op;
    sum.kernel = row.kernel;
    sum.backward = row.backward();
    sum.seconds += row.seconds / static_cast<double>(repeats);
    sum.calls += 1;
    sum.cost.macs += row.cost.macs / repeats;
    sum.cost.bytes += row.cost.bytes / repeats;
  }
  std::vector<ProfileRow> out;
  for (auto& [key, row] : merged) {
    row.calls /= repeats;
    out.push_back(row);
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  return out;
}

// Chrome's trace format: one complete event a call, laid end to end (gaps are not recorded).
void write_trace(const std::filesystem::path& path, const std::vector<LedgerRow>& rows) {
  nlohmann::json events = nlohmann::json::array();
  double at = 0;
  for (const LedgerRow& row : rows) {
    if (row.kernel == "view") continue;
    events.push_back({{"name", row.scope.empty() ? std::string(row.op) : row.scope + "/" + std::string(row.op)},
                      {"cat", row.backward() ? "backward" : "forward"},
                      {"ph", "X"}, {"ts", at}, {"dur", row.seconds * 1e6}, {"pid", 1}, {"tid", 1},
                      {"args", {{"kernel", row.kernel}, {"attributes", row.attributes},
                                {"macs", row.cost.macs}, {"bytes", row.cost.bytes}}}});
    at += row.seconds * 1e6;
  }
  const std::filesystem::path partial = path.string() + ".partial";
  std::ofstream out(partial);
  out << nlohmann::json{{"traceEvents", events}}.dump();
  out.close();
  if (!out) fail(path.string(), "cannot be written");
  std::filesystem::rename(partial, path);
}

}  // namespace

void add_profile(CLI::App& app, int& code) {
  auto options = std::make_shared<ProfileOptions>();
  CLI::App* command = app.add_subcommand("profile", "Time, MACs, bytes and kernel of every layer");
  add_net(*command, options->net);
  command->footer("Rows name the implementation that ran, so that a slow fallback is seen. The last row is what no\n"
                  "call accounts for: the end-to-end time measured without profiling less the sum of the rows.");
  add_precision(*command, options->precision);
  command->add_flag("--training,--train", options->training, "A training step instead of inference");
  command->add_option("--repeats", options->repeats, "Runs averaged")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command->add_option("--depth", options->depth, "Names of the layer's path that make a row; 0: rows by kernel only")
      ->check(CLI::Range(0, 32))
      ->capture_default_str();
  command->add_option("--rows", options->rows, "Most rows printed")->check(CLI::Range(1, 1000000))->capture_default_str();
  command->add_option("--trace", options->trace, "Also write a Chrome trace (JSON)");
  command->add_flag("--eager", options->eager, "Inference op by op, not by a plan");
  add_common(*command, options->common);
  command->callback([options, &code] {
    options->common.apply();
    code = command_profile(*options);
  });
}

int command_profile(const ProfileOptions& o) {
  const Arithmetic precision = resolve(o.precision);
  NetworkWork work(resolve_net(o.net), {.training = o.training, .precision = precision, .plan = !o.eager});
  const double end_to_end = spread_of(time_runs(work, 2, o.repeats)).median;
  std::vector<LedgerRow> rows;
  for (int64_t i = 0; i < o.repeats; ++i) {
    Ledger ledger(Ledger::Timing::on);
    work.on_backward([&] { ledger.begin(Part::backward); });
    const Observe observe(ledger);
    work.run();
    rows.insert(rows.end(), ledger.rows().begin(), ledger.rows().end());
  }
  work.on_backward({});
  if (!o.trace.empty()) write_trace(o.trace, rows);
  const auto summary = summarise(rows, o.depth, o.repeats);
  double attributed = 0;
  for (const ProfileRow& row : summary) attributed += row.seconds;
  if (o.common.json) {
    nlohmann::json out{{"end_to_end_seconds", end_to_end}, {"attributed_seconds", attributed},
                       {"precision", to_string(precision)}, {"machine", describe(this_machine())}, {"rows", nlohmann::json::array()}};
    for (const ProfileRow& r : summary)
      out["rows"].push_back({{"layer", r.scope}, {"op", r.op}, {"kernel", r.kernel}, {"backward", r.backward},
                             {"seconds", r.seconds}, {"calls", r.calls}, {"macs", r.cost.macs}, {"bytes", r.cost.bytes}});
    std::cout << out.dump() << '\n';
    return exit_done;
  }
  std::cout << fmt::format("{} of one sample, {}, {}; mean of {} runs\n", o.training ? "training step" : "inference",
                           to_string(precision), describe(this_machine()), o.repeats);
  std::cout << fmt::format("{:>9} {:>6} {:>5} {:>9} {:>8} {:>7}  {:<34} {:<5} {:<18} {}\n", "ms", "%", "calls", "MMAC",
                           "GFLOP/s", "GB/s", "layer", "", "op", "kernel");
  int64_t printed = 0;
  for (const ProfileRow& r : summary) {
    if (printed++ == o.rows) break;
    const double rate = r.seconds > 0 ? 1 / r.seconds : 0;
    std::cout << fmt::format("{:9.3f} {:6.2f} {:5} {:9.1f} {:8.1f} {:7.1f}  {:<34} {:<5} {:<18} {}\n", r.seconds * 1e3,
                             100 * r.seconds / end_to_end, r.calls, static_cast<double>(r.cost.macs) * 1e-6,
                             2e-9 * static_cast<double>(r.cost.macs) * rate, 1e-9 * static_cast<double>(r.cost.bytes) * rate,
                             r.scope, r.backward ? "bwd" : "fwd", r.op, r.kernel);
  }
  std::cout << fmt::format("{:9.3f} {:6.2f}  in {} rows; end to end without profiling {:.3f} ms, unattributed {:.3f} ms\n",
                           attributed * 1e3, 100 * attributed / end_to_end, summary.size(), end_to_end * 1e3,
                           (end_to_end - attributed) * 1e3);
  return exit_done;
}

}  // namespace voxlab
