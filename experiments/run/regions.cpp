#include "experiments/run/regions.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "experiments/run/evaluate.h"
#include "runtime/core/error.h"

namespace voxlab {

std::vector<uint8_t> region_classes(const RegionList& regions) {
  std::vector<uint8_t> classes;
  for (size_t r = 0; r < regions.size(); ++r) {
    std::vector<int64_t> own;
    for (int64_t c : regions[r]) {
      if (c < 1 || c > 255)
        fail("regions",
             fmt::format("region {} has class {}; expected foreground classes, 1 to 255", r, c));
      const bool later = std::any_of(
          regions.begin() + static_cast<std::ptrdiff_t>(r) + 1, regions.end(),
          [&](const auto& other) { return std::ranges::find(other, c) != other.end(); });
      if (!later) own.push_back(c);
    }
    if (own.size() != 1)
      fail("regions",
           fmt::format("region {} is [{}], of which no later region has [{}]; exactly one class "
                       "must remain, "
                       "or a prediction cannot be written as labels (larger regions come first)",
                       r, fmt::join(regions[r], ", "), fmt::join(own, ", ")));
    classes.push_back(static_cast<uint8_t>(own.front()));
  }
  return classes;
}

std::vector<Region> scored_regions(std::span<const LabelClass> classes, const RegionList& regions) {
  if (regions.empty()) return class_regions(classes);
  std::vector<Region> scored;
  for (const std::vector<int64_t>& labels : regions) {
    Region region{.name = "", .labels = labels};
    for (int64_t c : labels) {
      if (c < 0 || c >= static_cast<int64_t>(classes.size()))
        fail("regions", fmt::format("there is no class {}, the dataset has {}, background included",
                                    c, classes.size()));
      region.name += (region.name.empty() ? "" : " + ") + classes[static_cast<size_t>(c)].name;
    }
    scored.push_back(std::move(region));
  }
  return scored;
}

}  // namespace voxlab
