// The figures that one run hands to tables: each with what it is, how it was made and how many
// stand behind it, so that no table prints a bare number.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace voxlab {

// published: printed by a source. computed: follows from shapes alone. measured: came out of a run
// here.
enum class FigureKind : uint8_t { published, computed, measured };

constexpr auto enum_names(FigureKind) {
  return std::array{std::pair{std::string_view("published"), FigureKind::published},
                    std::pair{std::string_view("computed"), FigureKind::computed},
                    std::pair{std::string_view("measured"), FigureKind::measured}};
}

struct Figure {
  double value = 0;
  std::string unit;  // "", "MAC", "s", "mm"; base units, never kilo or milli
  FigureKind kind = FigureKind::measured;
  std::string source;            // convention, rule, device and precision, or where it was printed
  std::optional<double> spread;  // of what `source` says
  int64_t n = 1;                 // how many values the figure is made from

  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("value", s.value);
    v("unit", s.unit);
    v("kind", s.kind);
    v("source", s.source);
    v("spread", s.spread);
    v("n", s.n);
  }
};

// By name: params, macs, latency, train_step, dice, hd95, ... The columns of tables are found by
// them.
using Results = std::map<std::string, Figure>;

nlohmann::json to_json(const Results& results);
// Error naming `where` and the key when something is missing or of another type.
Results results_from_json(const nlohmann::json& json, std::string_view where);

}  // namespace voxlab
