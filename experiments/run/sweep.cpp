#include "experiments/run/sweep.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "experiments/config/bind.h"
#include "experiments/config/emit.h"
#include "experiments/config/parse.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

constexpr int64_t most_cells = 100'000;

std::string value_text(const ConfigNode& value) {
  return value.kind == NodeKind::text ? value.text : to_toml_value(value);
}

// "a.b" = [...] and a.b = [...] name the same axis.
void collect_axes(const ConfigNode& table, const std::string& prefix,
                  std::vector<SweepAxis>& axes) {
  for (const ConfigField& field : table.fields) {
    const std::string path = detail::join_path(prefix, field.key);
    const std::string where = field.key_at.to_string();
    if (field.value.is_table()) {
      collect_axes(field.value, path, axes);
      continue;
    }
    if (field.value.kind != NodeKind::array)
      fail(where, fmt::format("axis '{}': expected an array of values, got {}", path,
                              describe(field.value.kind)));
    if (field.value.items.empty())
      fail(where, fmt::format("axis '{}' has no values, so the sweep would be empty", path));
    for (const SweepAxis& other : axes) {
      if (other.path == path)
        fail(where, fmt::format("axis '{}' stands already at {}", path, other.at.to_string()));
      // One would overwrite the other, and an axis would be lost without a word.
      if (path.starts_with(other.path + ".") || other.path.starts_with(path + "."))
        fail(where, fmt::format("axis '{}' and axis '{}' ({}) set the same key", path, other.path,
                                other.at.to_string()));
    }
    axes.push_back({path, field.key_at, field.value.items});
  }
}

void check_table(const Suite& suite, const ConfigNode& table) {
  std::vector<std::string_view> paths;
  for (const SweepAxis& axis : suite.axes) paths.push_back(axis.path);
  const ConfigNode* rows = table.find("rows");
  if (!rows) return;
  for (const ConfigNode& row : rows->items)
    if (std::find(paths.begin(), paths.end(), row.text) == paths.end())
      fail(row.at.to_string(), "table.rows: " + unknown_text("axis", row.text, "", paths));
}

// Every label belongs to a value of an axis, or it is a misspelt one.
void check_labels(const Suite& suite, const ConfigNode& labels) {
  std::vector<std::string> known;
  for (const SweepAxis& axis : suite.axes)
    for (const ConfigNode& value : axis.values)
      known.push_back(axis.path + "." + value_text(value));
  const std::vector<std::string_view> views(known.begin(), known.end());
  for (const ConfigField& field : labels.fields)
    if (std::find(known.begin(), known.end(), field.key) == known.end())
      fail(field.key_at.to_string(), unknown_text("label", field.key, "", views));
}

std::string axis_label(const Suite& suite, const std::string& path, const std::string& value) {
  const auto found = suite.labels.find(path + "." + value);
  if (found != suite.labels.end()) return found->second;
  return path.substr(path.rfind('.') + 1) + "=" + value;
}

int64_t seed_of(const ConfigNode& config) {
  const ConfigNode* seed = config.find("seed");
  return seed && seed->kind == NodeKind::integer ? seed->integer : 0;
}

}  // namespace

Suite load_suite(const std::filesystem::path& path, std::span<const std::string> overrides) {
  Suite suite;
  suite.path = path;
  suite.base = load_config(path);
  const auto take = [&](std::string_view key) {
    const ConfigNode* found = suite.base.find(key);
    ConfigNode node = found ? *found : ConfigNode{};
    suite.base.erase(key);
    return node;
  };
  const ConfigNode axes = take("axes"), labels = take("labels"), table = take("table");
  detail::expect_kind(axes, "axes", NodeKind::table);
  collect_axes(axes, "", suite.axes);
  read_value(labels, "labels", suite.labels);
  read_value(table, "table", suite.table);
  check_labels(suite, labels);
  check_table(suite, table);
  if (suite.table.rows.empty())
    for (const SweepAxis& axis : suite.axes)
      if (axis.path != "seed") suite.table.rows.push_back(axis.path);
  for (const std::string& each : overrides) {
    for (const SweepAxis& axis : suite.axes)
      if (each.starts_with(axis.path + "="))
        fail(fmt::format("--set {}", each),
             fmt::format("'{}' is an axis of this suite", axis.path));
    apply_override(suite.base, each);
  }
  return suite;
}

std::string SweepCell::label() const {
  std::vector<std::string_view> parts;
  for (const AxisValue& axis : axes) parts.push_back(axis.label);
  return parts.empty() ? id : fmt::format("{}", fmt::join(parts, ", "));
}

std::vector<SweepCell> expand(const Suite& suite, const Resolver& resolver) {
  int64_t count = 1;
  for (const SweepAxis& axis : suite.axes) {
    count *= static_cast<int64_t>(axis.values.size());
    if (count > most_cells)
      fail(axis.at.to_string(),
           fmt::format("the axes up to '{}' make more than {} cells", axis.path, most_cells));
  }
  std::vector<SweepCell> cells;
  std::map<std::string, int64_t> seen;
  for (int64_t index = 0; index < count; ++index) {
    SweepCell cell;
    ConfigNode config = suite.base;
    int64_t rest = index, block = count;
    for (const SweepAxis& axis : suite.axes) {
      block /= static_cast<int64_t>(axis.values.size());
      const ConfigNode& value = axis.values[static_cast<size_t>(rest / block)];
      rest %= block;
      set_path(config, axis.path, value, axis.at);
      const std::string text = value_text(value);
      cell.axes.push_back({axis.path, text, axis_label(suite, axis.path, text)});
    }
    cell.config = resolver(config);
    cell.id = content_id(cell.config);
    cell.seed = seed_of(cell.config);
    if (const auto [other, fresh] = seen.emplace(cell.id, index); !fresh)
      fail(suite.path.string(), fmt::format("cells {} and {} are the same configuration ({})",
                                            other->second + 1, index + 1, cell.label()));
    cells.push_back(std::move(cell));
  }
  return cells;
}

static SweepEvent run_one(const SweepCell& cell, SweepEvent event,
                          const std::filesystem::path& root,
                          const std::function<Results(const SweepCell&, RunFolder&)>& run_cell,
                          const std::function<void(const SweepEvent&)>& report) {
  RunFolder folder(root, cell.id);
  event.before = folder.state();
  const auto end = [&](CellOutcome outcome) {
    event.kind = SweepEvent::Kind::end;
    event.outcome = outcome;
    return event;
  };
  if (event.before == RunState::finished) return end(CellOutcome::skipped);
  if (!folder.lock()) return end(CellOutcome::busy);
  event.before = folder.state();  // another process may have finished it in between
  if (event.before == RunState::finished) return end(CellOutcome::skipped);
  report(event);
  folder.begin(cell.config, cell.seed, cell.label());
  try {
    folder.finish(run_cell(cell, folder));
    return end(CellOutcome::done);
  } catch (const std::exception& error) {
    event.error = error.what();
    folder.fail(event.error);
    return end(CellOutcome::failed);
  }
}

SweepSummary run_sweep(std::span<const SweepCell> cells, const std::filesystem::path& runs_root,
                       const std::function<Results(const SweepCell&, RunFolder&)>& run_cell,
                       const std::function<void(const SweepEvent&)>& report) {
  SweepSummary summary;
  for (size_t i = 0; i < cells.size(); ++i) {
    SweepEvent event;
    event.index = static_cast<int64_t>(i);
    event.total = static_cast<int64_t>(cells.size());
    event.cell = &cells[i];
    event = run_one(cells[i], event, runs_root, run_cell, report);
    report(event);
    switch (event.outcome) {
      case CellOutcome::done:
        ++summary.done;
        break;
      case CellOutcome::skipped:
        ++summary.skipped;
        break;
      case CellOutcome::failed:
        ++summary.failed;
        break;
      case CellOutcome::busy:
        ++summary.busy;
        break;
    }
  }
  return summary;
}

}  // namespace voxlab
