// One table model and its printed forms. A cell with a number says what kind of number it is:
//   0.861 ±0.004 n=3   measured here      =42.95   computed from shapes      42.96 [1]   published
//   in source 1
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "experiments/run/results.h"

namespace voxlab {

struct Cell {
  std::string text;              // shown when there is no figure; "" is printed as "-"
  std::optional<Figure> figure;  // in the unit of the column
  int decimals = 3;

  static Cell of(std::string_view text) { return {std::string(text), std::nullopt, 0}; }
  static Cell of(Figure figure, int decimals) { return {"", std::move(figure), decimals}; }
};

struct Column {
  std::string name;   // machine-readable, for CSV and JSON
  std::string title;  // for people, with the unit
  bool right = true;  // alignment
};

class Table {
 public:
  explicit Table(std::string title, std::vector<Column> columns);
  void add_row(std::vector<Cell> cells);  // as many as there are columns
  void add_note(std::string note) { notes_.push_back(std::move(note)); }

  const std::string& title() const { return title_; }
  const std::vector<Column>& columns() const { return columns_; }
  const std::vector<std::vector<Cell>>& rows() const { return rows_; }
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  std::string title_;
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
  std::vector<std::string> notes_;
};

enum class TableFormat : uint8_t { text, markdown, csv, json };
constexpr auto enum_names(TableFormat) {
  return std::array{std::pair{std::string_view("text"), TableFormat::text},
                    std::pair{std::string_view("markdown"), TableFormat::markdown},
                    std::pair{std::string_view("csv"), TableFormat::csv},
                    std::pair{std::string_view("json"), TableFormat::json}};
}

// Text and Markdown print sources and notes below the table. CSV has six columns a figure (value,
// spread, n, unit, kind, source); JSON has objects.
std::string print(const Table& table, TableFormat format);
nlohmann::json to_json(const Table& table);

// Columns on a terminal, counting each code point of UTF-8 as one.
size_t display_width(std::string_view text);

}  // namespace voxlab
