#include "experiments/report/profile_card.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

namespace voxlab {
namespace {

std::string first_names(const std::string& scope, int depth) {
  if (depth == 0) return "";
  size_t end = 0;
  for (int d = 0; d < depth && end != std::string::npos; ++d) end = scope.find('.', d == 0 ? 0 : end + 1);
  return scope.substr(0, end);
}

bool has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

double rate_of(const LedgerRow& row, const MachinePeaks& peaks) {
  if (has(row.kernel, "bf16x3")) return peaks.bf16_gflops * 1e9 / 3;
  if (has(row.kernel, "bf16")) return peaks.bf16_gflops * 1e9;
  return peaks.f32_gflops * 1e9;
}

void add(Work& work, const LedgerRow& row, const Bound& bound) {
  work.seconds += row.seconds;
  work.bound_seconds += bound.seconds();
  if (bound.arithmetic > bound.memory) work.arithmetic_seconds += bound.arithmetic;
  work.calls += 1;
  work.macs += row.cost.macs;
  work.bytes += row.cost.bytes;
}

std::string columns(const Work& work, double whole) {
  const double rate = work.seconds > 0 ? 1e-9 / work.seconds : 0;
  return fmt::format("{:10.3f} {:6.2f} {:9.3f} {:8.1f} {:9.1f} {:7.1f}  {:<10} {:>7}", work.seconds * 1e3,
                     100 * work.seconds / whole, static_cast<double>(work.macs) * 1e-9,
                     2 * static_cast<double>(work.macs) * rate, static_cast<double>(work.bytes) * 1e-6,
                     static_cast<double>(work.bytes) * rate, work.bound(),
                     work.bound_seconds > 0 ? fmt::format("{:.0f} %", 100 * work.attained()) : "-");
}

nlohmann::json figures(const Work& work) {
  return {{"seconds", work.seconds}, {"calls", work.calls},    {"macs", work.macs},
          {"bytes", work.bytes},     {"bound", work.bound()}, {"bound_seconds", work.bound_seconds}};
}

}  // namespace

Bound bound_of(const LedgerRow& row, const MachinePeaks& peaks) {
  const double done = has(row.kernel, "winograd3") ? 8.0 / 27.0 : has(row.kernel, "winograd") ? 4.0 / 9.0 : 1.0;
  return {2 * done * static_cast<double>(row.cost.macs) / rate_of(row, peaks),
          static_cast<double>(row.cost.bytes) / (peaks.copy_gbytes_per_s * 1e9)};
}

std::string_view Work::bound() const {
  if (bound_seconds <= 0) return "-";
  return 2 * arithmetic_seconds > bound_seconds ? "arithmetic" : "memory";
}

double Work::attained() const { return seconds > 0 ? bound_seconds / seconds : 0; }

double Profile::attributed() const {
  double sum = 0;
  for (const LayerCard& card : cards) sum += card.work.seconds;
  return sum;
}

double Profile::unattributed() const { return end_to_end - attributed(); }

std::vector<LayerCard> cards_of(std::span<const LedgerRow> rows, const MachinePeaks& peaks, int depth) {
  std::map<std::string, LayerCard> layers;
  std::map<std::tuple<std::string, std::string, std::string, bool>, Work> kernels;
  for (const LedgerRow& row : rows) {
    if (row.is_view()) continue;
    const std::string name = first_names(row.scope, depth);
    const Bound bound = bound_of(row, peaks);
    LayerCard& card = layers[name];
    add(card.work, row, bound);
    if (!row.backward() || card.memory_after == 0) card.memory_after = row.memory_after;
    add(kernels[{name, std::string(row.op), row.kernel, row.backward()}], row, bound);
  }
  for (auto& [key, work] : kernels) {
    const auto& [layer, op, kernel, backward] = key;
    layers[layer].kernels.push_back({op, kernel, backward, work});
  }
  const auto slower = [](const auto& a, const auto& b) { return a.work.seconds > b.work.seconds; };
  std::vector<LayerCard> cards;
  for (auto& [name, card] : layers) {
    card.layer = name;
    std::stable_sort(card.kernels.begin(), card.kernels.end(), slower);
    cards.push_back(std::move(card));
  }
  std::stable_sort(cards.begin(), cards.end(), slower);
  return cards;
}

std::string to_text(const Profile& p, int64_t layers) {
  std::string out = fmt::format(
      "{}; quietest of {} runs\npeaks measured: {:.1f} Gflop/s f32, {:.1f} bf16, copies {:.1f} GB/s\n"
      "{:>10} {:>6} {:>9} {:>8} {:>9} {:>7}  {:<10} {:>7} {:>8}  {}\n",
      p.title, p.runs, p.peaks.f32_gflops, p.peaks.bf16_gflops, p.peaks.copy_gbytes_per_s, "ms", "%", "GMAC", "Gflop/s",
      "MB", "GB/s", "bound", "reached", "MiB", "layer, then its kernels");
  for (size_t i = 0; i < p.cards.size() && static_cast<int64_t>(i) < layers; ++i) {
    const LayerCard& card = p.cards[i];
    out += fmt::format("{} {:8.1f}  {}\n", columns(card.work, p.end_to_end),
                       static_cast<double>(card.memory_after) / (1 << 20), card.layer.empty() ? "(all)" : card.layer);
    for (const KernelWork& each : card.kernels)
      out += fmt::format("{} {:8}    {} {} {} ({})\n", columns(each.work, p.end_to_end), "", each.backward ? "bwd" : "fwd",
                         each.op, each.kernel, each.work.calls);
  }
  const auto left_out = static_cast<int64_t>(p.cards.size()) - layers;
  if (left_out > 0) out += fmt::format("... and {} layers more (--rows)\n", left_out);
  const auto line = [&](double seconds, std::string_view what) {
    out += fmt::format("{:10.3f} {:6.2f}  {}\n", seconds * 1e3, 100 * seconds / p.end_to_end, what);
  };
  line(p.attributed(), fmt::format("in {} layers", p.cards.size()));
  line(p.unattributed(), "unattributed: in no call of an op, or the profiler's own error");
  line(p.end_to_end, "end to end, measured without profiling");
  return out;
}

nlohmann::json to_json(const Profile& p) {
  nlohmann::json out{{"title", p.title},
                     {"runs", p.runs},
                     {"end_to_end_seconds", p.end_to_end},
                     {"attributed_seconds", p.attributed()},
                     {"unattributed_seconds", p.unattributed()},
                     {"peaks",
                      {{"f32_gflops", p.peaks.f32_gflops},
                       {"bf16_gflops", p.peaks.bf16_gflops},
                       {"copy_gbytes_per_s", p.peaks.copy_gbytes_per_s}}},
                     {"layers", nlohmann::json::array()}};
  for (const LayerCard& card : p.cards) {
    nlohmann::json layer = figures(card.work);
    layer["layer"] = card.layer;
    layer["memory_after_bytes"] = card.memory_after;
    for (const KernelWork& each : card.kernels) {
      nlohmann::json kernel = figures(each.work);
      kernel.update({{"op", each.op}, {"kernel", each.kernel}, {"backward", each.backward}});
      layer["kernels"].push_back(std::move(kernel));
    }
    out["layers"].push_back(std::move(layer));
  }
  return out;
}

}  // namespace voxlab
