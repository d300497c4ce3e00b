// Whole training steps, loss by loss: the adamw record in f64 and f32 on both backends, the whole
// small network's where it takes seconds.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "experiments/golden/golden.h"

namespace voxlab {
namespace {

void expect_agrees(const std::string& name, const GoldenOptions& options) {
  const std::filesystem::path file = std::string(VOXLAB_TEST_DATA "/goldens/unetr_pp/") + name;
  std::ifstream in(file);
  const GoldenReport report = golden_trajectory(file, nlohmann::json::parse(in), options);
  EXPECT_FALSE(report.rows.empty());
  for (const GoldenRow& row : report.rows)
    EXPECT_TRUE(row.pass) << row.name << " error " << row.error << " limit " << row.limit;
}

TEST(TrainTrajectory, SmallNetAdamW) {
  for (const Device device : {Device::ref, Device::cpu})
    for (const DType dtype : {DType::f64, DType::f32})
      expect_agrees("train_trajectory_adamw.json", {.device = device, .dtype = dtype});
}

TEST(TrainTrajectory, UnetrPpSgdF32) {
  expect_agrees("train_trajectory.json", {.device = Device::cpu, .dtype = DType::f32});
}

// Plain f64 loops through twelve steps of a network: some fifteen seconds.
TEST(TrainTrajectory, UnetrPpSgdF64) {
  expect_agrees("train_trajectory.json", {.device = Device::ref, .dtype = DType::f64});
}

}  // namespace
}  // namespace voxlab
