// What the networks' configurations check and print in the same way.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace voxlab {

std::string text(const std::vector<int64_t>& values);  // "[1, 2]"

// Error at `where` unless there are `count` values, all above zero.
void expect_positive(std::string_view where, std::string_view key, const std::vector<int64_t>& values, size_t count);

}  // namespace voxlab
