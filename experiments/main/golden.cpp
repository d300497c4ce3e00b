// `voxlab golden`.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "experiments/golden/golden_file.h"
#include "experiments/main/options.h"
#include "runtime/core/error.h"
#include "runtime/runtime.h"

namespace voxlab {
namespace {

struct Checked {
  GoldenReport report;
  std::string error;  // the check itself could not be made
  double seconds = 0;
  bool pass() const { return error.empty() && report.pass(); }
};

Checked check(const std::filesystem::path& file, const GoldenOptions& options) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  Checked out;
  out.report.file = file.string();
  try {
    out.report = golden_file(file, options);
  } catch (const std::exception& error) {
    out.error = error.what();
  }
  out.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return out;
}

// How near a row is to its limit; a failing row is beyond any passing one.
double closeness(const GoldenRow& row) {
  if (!row.pass) return std::isnan(row.error) || row.limit <= 0 ? 1e300 : row.error / row.limit;
  return row.limit > 0 ? row.error / row.limit : 0;
}

std::string summary_line(const Checked& checked) {
  const GoldenReport& report = checked.report;
  if (!checked.error.empty()) return fmt::format("FAIL  {}  {}", report.file, checked.error);
  std::string line =
      fmt::format("{}  {}  {}, {} row{}", report.pass() ? "pass" : "FAIL", report.file, report.kind,
                  report.rows.size(), report.rows.size() == 1 ? "" : "s");
  if (report.rows.empty()) return line + ": nothing was compared";
  const auto failed = std::count_if(report.rows.begin(), report.rows.end(),
                                    [](const GoldenRow& row) { return !row.pass; });
  if (failed > 0) line += fmt::format(", {} failed", failed);
  if (!report.unchecked.empty()) line += fmt::format(", {} not compared", report.unchecked.size());
  const auto worst = std::max_element(
      report.rows.begin(), report.rows.end(),
      [](const GoldenRow& a, const GoldenRow& b) { return closeness(a) < closeness(b); });
  return line + fmt::format(", worst {} {:.2e} of {:.2e}  ({:.2f} s)", worst->name, worst->error,
                            worst->limit, checked.seconds);
}

Table rows_table(const GoldenReport& report, bool all) {
  Table table("", {{"pass", "", false},
                   {"name", "tensor or figure", false},
                   {"error", "error", true},
                   {"limit", "limit", true},
                   {"note", "note", false}});
  for (const GoldenRow& row : report.rows)
    if (all || !row.pass)
      table.add_row({Cell::of(row.pass ? "  pass" : "  FAIL"), Cell::of(row.name),
                     Cell::of(fmt::format("{:.3e}", row.error)),
                     Cell::of(fmt::format("{:.3e}", row.limit)),
                     Cell::of(row.note.empty() ? " " : row.note)});
  return table;
}

nlohmann::json number(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(fmt::format("{}", value));
}

nlohmann::json to_json(const Checked& checked) {
  const GoldenReport& report = checked.report;
  nlohmann::json rows = nlohmann::json::array();
  for (const GoldenRow& row : report.rows)
    rows.push_back({{"name", row.name},
                    {"error", number(row.error)},
                    {"limit", number(row.limit)},
                    {"pass", row.pass},
                    {"note", row.note}});
  nlohmann::json out = {{"file", report.file},
                        {"kind", report.kind},
                        {"pass", checked.pass()},
                        {"seconds", checked.seconds},
                        {"rows", std::move(rows)},
                        {"not_compared", report.unchecked}};
  if (!checked.error.empty()) out["error"] = checked.error;
  return out;
}

}  // namespace

void add_golden(CLI::App& app, int& code) {
  auto options = std::make_shared<GoldenCommandOptions>();
  CLI::App* command =
      app.add_subcommand("golden", "Check reference records of networks and tools against voxlab");
  command->footer(
      "One line a file, and a table of what disagrees; exit code 1 when anything does. Networks "
      "are\n"
      "built from the record's configuration and filled by its rule. Limits: f64 1e-9 for outputs "
      "and\n"
      "1e-8 for gradients, relative to the tensor's norm; strict f32 four times the record's own float32\n"
      "noise; bf16x3 and bf16 bounds of their own, which the last line states.");
  command->add_option("paths", options->paths, "Records (.json), data files beside one, or folders")
      ->required();
  add_choice(*command, "--backend", options->backend,
             "ref: plain loops in f64; cpu: the fast kernels", {"ref", "cpu"});
  CLI::Option* dtype = add_dtype(*command, options->dtype, {"f32", "f64"},
                                 "Of tensors; default: f64 on ref, f32 on cpu");
  add_choice(*command, "--precision", options->precision, "Products of f32 tensors on cpu",
             {"strict", "bf16x3", "bf16"});
  command->add_flag("--all", options->all, "Every row of every file, not only what disagrees");
  add_common(*command, options->common);
  command->callback([options, dtype, &code] {
    if (dtype->count() == 0)
      options->dtype = options->backend == Device::ref ? DType::f64 : DType::f32;
    options->common.apply();
    code = command_golden(*options);
  });
}

int command_golden(const GoldenCommandOptions& options) {
  const GoldenOptions golden = {
      .device = options.backend, .dtype = options.dtype, .precision = resolve(options.precision)};
  if (golden.precision != Arithmetic::strict && (golden.device != Device::cpu || golden.dtype != DType::f32))
    fail("golden", fmt::format("--precision {} is of f32 on cpu, not of {} on {}", to_string(golden.precision),
                               name(golden.dtype), to_string(golden.device)));
  int64_t failed = 0;
  nlohmann::json json = nlohmann::json::array();
  const std::vector<std::filesystem::path> files = golden_files(options.paths);
  for (const std::filesystem::path& file : files) {
    const Checked checked = check(file, golden);
    failed += !checked.pass();
    if (options.common.json) {
      json.push_back(to_json(checked));
      continue;
    }
    if (!options.common.quiet || !checked.pass()) std::cout << summary_line(checked) << '\n';
    if (!checked.report.rows.empty() && (options.all || !checked.pass()))
      std::cout << print(rows_table(checked.report, options.all), TableFormat::text) << '\n';
    if (options.all)
      for (const std::string& each : checked.report.unchecked) std::cout << "  not compared: " << each << '\n';
    std::cout.flush();
  }
  if (options.common.json) {
    const nlohmann::json out = {{"backend", to_string(options.backend)},
                                {"dtype", name(options.dtype)},
                                {"precision", to_string(golden.precision)},
                                {"limits", describe_limits(golden)},
                                {"pass", failed == 0},
                                {"files", std::move(json)}};
    std::cout << out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
  } else if (files.size() > 1 || golden.precision != Arithmetic::strict) {
    std::cout << fmt::format("{} of {} files agree ({} on {}, {}; limits: {})\n",
                             static_cast<int64_t>(files.size()) - failed, files.size(), name(options.dtype),
                             to_string(options.backend), to_string(golden.precision), describe_limits(golden));
  }
  return failed == 0 ? exit_done : exit_negative;
}

}  // namespace voxlab
