#include "experiments/golden/golden.h"

#include <algorithm>

namespace voxlab {

bool GoldenReport::pass() const {
  return !rows.empty() &&
         std::all_of(rows.begin(), rows.end(), [](const GoldenRow& row) { return row.pass; });
}

void GoldenReport::add(std::string name, double error, double limit, std::string note) {
  rows.push_back({std::move(name), error, limit, error <= limit, std::move(note)});
}

uint64_t fnv1a64(std::string_view name) {
  uint64_t h = 0xCBF29CE484222325u;
  for (char c : name) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return h;
}

double golden_uniform(uint64_t name_hash, int64_t i) {
  uint64_t z = name_hash + static_cast<uint64_t>(i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z = z ^ (z >> 31);
  return static_cast<double>(z >> 40) * 0x1p-24;
}

std::vector<float> golden_fill(std::string_view name, int64_t count, double scale, double offset,
                               bool half) {
  const uint64_t hash = fnv1a64(name);
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const double u = golden_uniform(hash, i);
    values[static_cast<size_t>(i)] =
        static_cast<float>(half ? offset + u * scale : offset + (2 * u - 1) * scale);
  }
  return values;
}

}  // namespace voxlab
