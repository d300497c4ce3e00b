// The authors' networks, number by number: every small record in f64 on the reference backend and in f32
// on the fast one.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "experiments/golden/golden.h"
#include "runtime/core/visit.h"

namespace voxlab {
namespace {

struct Case {
  std::filesystem::path file;
  GoldenOptions options;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* net : {"unetr_pp", "ux_net", "levit_unet", "brats_unet", "dae_former"})
    for (const auto& entry : std::filesystem::directory_iterator(std::string(VOXLAB_TEST_DATA "/goldens/") + net)) {
      const std::string stem = entry.path().stem();
      if (stem == "counts" || stem.starts_with("train_trajectory")) continue;
      all.push_back({entry.path(), {Device::ref, DType::f64}});
      all.push_back({entry.path(), {Device::cpu, DType::f32}});
    }
  return all;
}

class GoldenNetwork : public testing::TestWithParam<Case> {};

TEST_P(GoldenNetwork, Agrees) {
  std::ifstream in(GetParam().file);
  const GoldenReport report = golden_network(GetParam().file, nlohmann::json::parse(in), GetParam().options);
  EXPECT_FALSE(report.rows.empty());
  for (const GoldenRow& row : report.rows)
    EXPECT_TRUE(row.pass) << row.name << " error " << row.error << " limit " << row.limit << " " << row.note;
}

INSTANTIATE_TEST_SUITE_P(Records, GoldenNetwork, testing::ValuesIn(cases()), [](const auto& info) {
  const std::filesystem::path& file = info.param.file;  // two networks may have a block of one name
  return file.parent_path().filename().string() + "_" + file.stem().string() + "_" +
         std::string(to_string(info.param.options.device)) + "_" + std::string(name(info.param.options.dtype));
});

}  // namespace
}  // namespace voxlab
