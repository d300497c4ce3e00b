// What the tests of experiments/data share: golden reports as assertions, files in memory, a folder
// that is removed again.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "experiments/golden/golden.h"
#include "runtime/core/error.h"
#include "tests/support/temporary_folder.h"

namespace voxlab::test {

inline std::filesystem::path golden_path(const std::string& name) {
  return std::filesystem::path(VOXLAB_TEST_DATA) / "goldens" / name;
}

inline std::vector<std::byte> file_bytes(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  return {first, first + text.size()};
}

inline nlohmann::json read_json(const std::filesystem::path& file) {
  std::ifstream in(file);
  return nlohmann::json::parse(in);
}

inline void expect_pass(const GoldenReport& report) {
  EXPECT_FALSE(report.rows.empty());
  for (const GoldenRow& row : report.rows)
    EXPECT_TRUE(row.pass) << row.name << ": " << row.error << " > " << row.limit << " " << row.note;
}

// Runs `body` and returns the text of the Error that it must throw.
template <class Body>
std::string error_of(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no Error was thrown";
  return {};
}

}  // namespace voxlab::test
