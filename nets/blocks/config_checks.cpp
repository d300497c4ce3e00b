#include "nets/blocks/config_checks.h"

#include "runtime/core/error.h"

namespace voxlab {

std::string text(const std::vector<int64_t>& values) {
  std::string out = "[";
  for (size_t i = 0; i < values.size(); ++i) out += (i ? ", " : "") + std::to_string(values[i]);
  return out + "]";
}

void expect_positive(std::string_view where, std::string_view key, const std::vector<int64_t>& values, size_t count) {
  bool fine = values.size() == count;
  for (int64_t v : values) fine = fine && v > 0;
  if (!fine)
    fail(where, std::string(key) + " needs " + std::to_string(count) + " positive numbers, got " + text(values));
}

}  // namespace voxlab
