#include "experiments/report/published_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "experiments/report/suite_table.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

// Digits as printed: a published 86.6 is not 86.60.
int printed_decimals(double value) {
  const std::string text = fmt::format("{}", value);
  const size_t dot = text.find('.');
  return dot == std::string::npos || text.find('e') != std::string::npos
             ? 0
             : static_cast<int>(text.size() - dot - 1);
}

}  // namespace

std::string row_key(const Suite& suite, const SweepCell& cell) {
  const auto& rows = suite.table.rows;
  std::string key;
  for (const AxisValue& axis : cell.axes)
    if (std::find(rows.begin(), rows.end(), axis.path) != rows.end())
      key += (key.empty() ? "" : "/") + axis.value;
  return key;
}

PublishedRows::PublishedRows(const Suite& suite, std::filesystem::path root)
    : suite_(suite), root_(std::move(root)) {}

void PublishedRows::check_rows(std::span<const SweepCell> cells) const {
  std::vector<std::string> keys;
  for (const SweepCell& cell : cells) {
    std::string key = row_key(suite_, cell);
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(std::move(key));
  }
  const std::vector<std::string_view> known(keys.begin(), keys.end());
  for (const auto& [key, method] : suite_.table.published.rows)
    if (std::find(known.begin(), known.end(), key) == known.end())
      fail(suite_.path.string(), "table.published.rows: " + unknown_text("row", key, "", known));
}

const PublishedTable& PublishedRows::table(const std::string& id) const {
  const auto found = tables_.find(id);
  if (found != tables_.end()) return found->second;
  return tables_.emplace(id, load_published(root_, id)).first->second;
}

std::string PublishedRows::key(const FigureColumn& column) const {
  const PublishedSpec& spec = suite_.table.published;
  if (spec.table.empty()) return "";
  const auto found = spec.columns.find(std::string(column.name));
  return found == spec.columns.end() ? std::string(column.published_key) : found->second;
}

bool PublishedRows::has(const FigureColumn& column) const { return !key(column).empty(); }

PublishedRows::Entry PublishedRows::find(const std::string& row, const FigureColumn& column) const {
  const PublishedSpec& spec = suite_.table.published;
  const auto method = spec.rows.find(row);
  if (method == spec.rows.end() || !has(column)) return {};
  // "METHOD", or "TABLE: METHOD" for a row of another table of the same file.
  std::string id = spec.table, name = method->second;
  if (const size_t colon = name.find(": "); colon != std::string::npos) {
    id = id.substr(0, id.find('/') + 1) + name.substr(0, colon);
    name = name.substr(colon + 2);
  }
  Entry entry{.named = true, .figure = table(id).find(name, key(column))};
  if (!entry.figure) return entry;
  entry.decimals = printed_decimals(entry.figure->value);
  if (const auto factor = spec.factors.find(std::string(column.name));
      factor != spec.factors.end()) {
    entry.decimals -= static_cast<int>(std::lround(std::log10(factor->second)));
    entry.decimals = std::max(entry.decimals, 0);
    const double digits = std::pow(10, entry.decimals);
    entry.figure->value = std::round(entry.figure->value * factor->second * digits) / digits;
  }
  entry.figure->unit = column.unit;
  return entry;
}

Cell PublishedRows::cell(const std::string& row, const FigureColumn& column) const {
  Entry entry = find(row, column);
  if (!entry.named) return Cell::of("");
  if (!entry.figure) return Cell::of("not found");
  return Cell::of(std::move(*entry.figure), entry.decimals);
}

}  // namespace voxlab
