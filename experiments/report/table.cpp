#include "experiments/report/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/config/bind.h"
#include "experiments/config/emit.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

// Numbers the published sources of a table in the order of their first use.
class Sources {
 public:
  size_t number(const std::string& source) {
    const auto found = std::find(list_.begin(), list_.end(), source);
    if (found != list_.end()) return static_cast<size_t>(found - list_.begin()) + 1;
    list_.push_back(source);
    return list_.size();
  }
  const std::vector<std::string>& list() const { return list_; }

 private:
  std::vector<std::string> list_;
};

std::string number_text(double value, int decimals) {
  if (std::isnan(value)) return "undefined";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  return fmt::format("{:.{}f}", value, decimals);
}

std::string cell_text(const Cell& cell, Sources& sources) {
  if (!cell.figure) return cell.text.empty() ? "-" : cell.text;
  const Figure& figure = *cell.figure;
  std::string text = number_text(figure.value, cell.decimals);
  if (figure.spread) text += " ±" + number_text(*figure.spread, cell.decimals);
  if (figure.kind == FigureKind::measured && figure.n > 1) text += fmt::format(" n={}", figure.n);
  if (figure.kind == FigureKind::computed) return "=" + text;
  if (figure.kind == FigureKind::published)
    return fmt::format("{} [{}]", text, sources.number(figure.source));
  return text;
}

std::string pad(const std::string& text, size_t width, bool right) {
  const std::string space(width - std::min(width, display_width(text)), ' ');
  return right ? space + text : text + space;
}

// What the marks of the cells mean, for those that occur.
std::vector<std::string> legend(const Table& table, const Sources& sources) {
  bool computed = false, measured = false, spread = false;
  for (const auto& row : table.rows())
    for (const Cell& cell : row)
      if (cell.figure) {
        computed |= cell.figure->kind == FigureKind::computed;
        measured |= cell.figure->kind == FigureKind::measured;
        spread |= cell.figure->spread.has_value();
      }
  std::vector<std::string> lines = table.notes();
  std::vector<std::string> marks;
  if (measured)
    marks.push_back(spread ? "x ±s n=k measured here, k values with spread s" : "x measured here");
  if (computed) marks.push_back("=x computed from shapes");
  if (!sources.list().empty()) marks.push_back("x [k] published in source k");
  if (!marks.empty()) lines.push_back(fmt::format("{}", fmt::join(marks, "; ")));
  for (size_t i = 0; i < sources.list().size(); ++i)
    lines.push_back(fmt::format("[{}] {}", i + 1, sources.list()[i]));
  return lines;
}

using Grid = std::vector<std::vector<std::string>>;

Grid text_grid(const Table& table, Sources& sources) {
  Grid grid(1);
  for (const Column& column : table.columns()) grid[0].push_back(column.title);
  for (const auto& row : table.rows()) {
    grid.emplace_back();
    for (const Cell& cell : row) grid.back().push_back(cell_text(cell, sources));
  }
  return grid;
}

std::vector<size_t> widths(const Grid& grid) {
  std::vector<size_t> out(grid[0].size(), 0);
  for (const auto& row : grid)
    for (size_t c = 0; c < row.size(); ++c) out[c] = std::max(out[c], display_width(row[c]));
  return out;
}

std::string print_text(const Table& table) {
  Sources sources;
  const Grid grid = text_grid(table, sources);
  const std::vector<size_t> width = widths(grid);
  std::string out = table.title().empty() ? "" : table.title() + "\n\n";
  for (size_t r = 0; r < grid.size(); ++r) {
    std::string line;
    for (size_t c = 0; c < width.size(); ++c)
      line += (c ? "   " : "") + pad(grid[r][c], width[c], table.columns()[c].right);
    out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
    if (r == 0) {
      for (size_t c = 0; c < width.size(); ++c)
        out += (c ? "   " : "") + std::string(width[c], '-');
      out += "\n";
    }
  }
  const auto below = legend(table, sources);
  if (!below.empty()) out += "\n";
  for (const std::string& line : below) out += line + "\n";
  return out;
}

std::string escape_markdown(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '|' || c == '*' || c == '_' || c == '<' || c == '`') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

std::string print_markdown(const Table& table) {
  Sources sources;
  Grid grid = text_grid(table, sources);
  for (auto& row : grid)
    for (std::string& text : row) text = escape_markdown(text);
  const std::vector<size_t> width = widths(grid);
  std::string out =
      table.title().empty() ? "" : fmt::format("**{}**\n\n", escape_markdown(table.title()));
  for (size_t r = 0; r < grid.size(); ++r) {
    out += "|";
    for (size_t c = 0; c < width.size(); ++c)
      out += " " + pad(grid[r][c], width[c], table.columns()[c].right) + " |";
    out += "\n";
    if (r > 0) continue;
    out += "|";
    for (size_t c = 0; c < width.size(); ++c)
      out += table.columns()[c].right ? std::string(width[c] + 1, '-') + ":|"
                                      : ":" + std::string(width[c] + 1, '-') + "|";
    out += "\n";
  }
  const auto below = legend(table, sources);
  if (!below.empty()) out += "\n";
  for (const std::string& line : below) out += "- " + escape_markdown(line) + "\n";
  return out;
}

// RFC 4180.
std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

bool has_figures(const Table& table, size_t column) {
  return std::any_of(table.rows().begin(), table.rows().end(),
                     [&](const auto& row) { return row[column].figure.has_value(); });
}

std::string print_csv(const Table& table) {
  std::vector<std::string> head;
  for (size_t c = 0; c < table.columns().size(); ++c) {
    const std::string& name = table.columns()[c].name;
    head.push_back(csv_field(name));
    if (has_figures(table, c))
      for (const char* part : {"spread", "n", "unit", "kind", "source"})
        head.push_back(csv_field(name + "." + part));
  }
  std::string out = fmt::format("{}\r\n", fmt::join(head, ","));
  for (const auto& row : table.rows()) {
    std::vector<std::string> line;
    for (size_t c = 0; c < row.size(); ++c) {
      const std::optional<Figure>& figure = row[c].figure;
      line.push_back(csv_field(figure ? fmt::format("{}", figure->value) : row[c].text));
      if (!has_figures(table, c)) continue;
      line.push_back(figure && figure->spread ? fmt::format("{}", *figure->spread) : "");
      line.push_back(figure ? fmt::format("{}", figure->n) : "");
      line.push_back(figure ? csv_field(figure->unit) : "");
      line.push_back(figure ? std::string(to_string(figure->kind)) : "");
      line.push_back(figure ? csv_field(figure->source) : "");
    }
    out += fmt::format("{}\r\n", fmt::join(line, ","));
  }
  return out;
}

}  // namespace

Table::Table(std::string title, std::vector<Column> columns)
    : title_(std::move(title)), columns_(std::move(columns)) {}

void Table::add_row(std::vector<Cell> cells) {
  VOXLAB_CHECK(cells.size() == columns_.size());
  rows_.push_back(std::move(cells));
}

size_t display_width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;  // not a continuation byte
  }));
}

nlohmann::json to_json(const Table& table) {
  nlohmann::json out = {{"title", table.title()}, {"notes", table.notes()}};
  for (const Column& column : table.columns())
    out["columns"].push_back({{"name", column.name}, {"title", column.title}});
  out["rows"] = nlohmann::json::array();
  for (const auto& row : table.rows()) {
    nlohmann::json cells = nlohmann::json::object();
    for (size_t c = 0; c < row.size(); ++c) {
      const Cell& cell = row[c];
      cells[table.columns()[c].name] =
          cell.figure ? to_json(to_node(*cell.figure)) : nlohmann::json(cell.text);
    }
    out["rows"].push_back(std::move(cells));
  }
  return out;
}

std::string print(const Table& table, TableFormat format) {
  switch (format) {
    case TableFormat::text:
      return print_text(table);
    case TableFormat::markdown:
      return print_markdown(table);
    case TableFormat::csv:
      return print_csv(table);
    case TableFormat::json:
      break;
  }
  return to_json(table).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace voxlab
