// `voxlab profile`.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "experiments/main/net_options.h"
#include "experiments/main/options.h"
#include "experiments/report/profile_card.h"
#include "experiments/run/machine.h"
#include "experiments/run/timing.h"
#include "runtime/analyze/ledger.h"
#include "runtime/core/error.h"
#include "runtime/runtime.h"

namespace voxlab {
namespace {

// Chrome's trace format: one complete event a call, laid end to end (gaps are not recorded).
void write_trace(const std::filesystem::path& path, const std::vector<LedgerRow>& rows) {
  nlohmann::json events = nlohmann::json::array();
  double at = 0;
  for (const LedgerRow& row : rows) {
    if (row.is_view()) continue;
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

// Of several runs the quietest, whose calls took the least time together: what disturbs the machine during some of the runs,
// with the ledger or without, would else open the books.
const std::vector<LedgerRow>& quietest(const std::vector<std::vector<LedgerRow>>& runs) {
  const auto total = [](const std::vector<LedgerRow>& rows) {
    return std::accumulate(rows.begin(), rows.end(), 0.0, [](double sum, const LedgerRow& r) { return sum + r.seconds; });
  };
  return *std::min_element(runs.begin(), runs.end(), [&](const auto& a, const auto& b) { return total(a) < total(b); });
}

// Of two measurements: what disturbs the machine during one of them does not make bounds larger.
MachinePeaks larger(const MachinePeaks& a, const MachinePeaks& b) {
  return {.f32_gflops = std::max(a.f32_gflops, b.f32_gflops),
          .bf16_gflops = std::max(a.bf16_gflops, b.bf16_gflops),
          .copy_gbytes_per_s = std::max(a.copy_gbytes_per_s, b.copy_gbytes_per_s)};
}

}  // namespace

void add_profile(CLI::App& app, int& code) {
  auto options = std::make_shared<ProfileOptions>();
  CLI::App* command = app.add_subcommand("profile", "Time, MACs, bytes and kernel of every layer");
  add_net(*command, options->net);
  command->footer(
      "A card a layer, the most expensive first; below each the kernels that ran, by name, so that a slow fallback\n"
      "is seen. GMAC, MB: what the op asks for (convolutions at their own count, tensors read and written once).\n"
      "bound, reached: the larger of multiply-adds at the measured peak and bytes at the speed of copies, over the\n"
      "time; tensors that stay in the caches can pass it. Winograd kernels make 4 of 9 multiply-adds, winograd3\n"
      "8 of 27. MiB: live tensors after the layer's forward pass. Backward work stands on the card of the layer it belongs to.");
  add_precision(*command, options->precision);
  command->add_flag("--training,--train", options->training, "A training step instead of inference");
  command->add_option("--repeats", options->repeats, "Runs; the quietest is shown")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  add_batch(*command, options->batch);
  command->add_option("--depth", options->depth, "Names of the layer's path that make a card; 0: one card for all")
      ->check(CLI::Range(0, 32))
      ->capture_default_str();
  command->add_option("--rows", options->rows, "Most cards printed")->check(CLI::Range(1, 1000000))->capture_default_str();
  command->add_option("--trace", options->trace, "Also write a Chrome trace (JSON)");
  command->add_flag("--recompute", options->recompute, "Of a training step: as train.recompute")->needs("--training");
  command->add_flag("--eager", options->eager, "Op by op, not by a plan");
  add_common(*command, options->common);
  command->callback([options, &code] {
    options->common.apply();
    code = command_profile(*options);
  });
}

int command_profile(const ProfileOptions& o) {
  const Arithmetic precision = resolve(o.precision);
  NetworkWork work(resolve_net(o.net), {.training = o.training, .precision = precision, .batch = o.batch, .plan = !o.eager, .recompute = o.recompute});
  const MachinePeaks peaks_before = machine_peaks();
  time_runs(work, 2, 0);
  std::vector<double> seconds;
  std::vector<std::vector<LedgerRow>> runs;
  // In turn, so that a machine that slows down slows both.
  for (int64_t i = 0; i < o.repeats; ++i) {
    seconds.push_back(time_runs(work, 0, 1).front());
    Ledger ledger(Ledger::Timing::on);
    const Observe observe(ledger);
    work.run();
    runs.push_back(ledger.take_rows());
  }
  const std::vector<LedgerRow>& rows = quietest(runs);
  if (!o.trace.empty()) write_trace(o.trace, rows);
  Profile profile{.title = fmt::format("{} of {}, {}, {}", o.training ? "training step" : "inference", samples(o.batch),
                                       to_string(precision), describe(this_machine())),
                  .peaks = larger(peaks_before, machine_peaks()),
                  .runs = o.repeats,
                  .end_to_end = *std::min_element(seconds.begin(), seconds.end())};
  profile.cards = cards_of(rows, profile.peaks, o.depth);
  if (o.common.json)
    std::cout << to_json(profile).dump() << '\n';
  else
    std::cout << to_text(profile, o.rows);
  return exit_done;
}

}  // namespace voxlab
