// Losses, optimizers and schedules against the reference records.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "experiments/golden/golden.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

namespace fs = std::filesystem;
using Golden = GoldenReport (*)(const fs::path&, const nlohmann::json&, const GoldenOptions&);

nlohmann::json read(const fs::path& file) {
  std::ifstream in(file);
  return nlohmann::json::parse(in);
}

const fs::path folder = fs::path(VOXLAB_TEST_DATA) / "goldens";

void expect_all_pass(Golden golden, const std::string& kind, const GoldenOptions& options) {
  int files = 0;
  for (const auto& entry : fs::directory_iterator(folder / kind)) {
    SCOPED_TRACE(entry.path().filename());
    GoldenReport report;
    ASSERT_NO_THROW(report = golden(entry.path(), read(entry.path()), options));
    EXPECT_FALSE(report.rows.empty());
    for (const GoldenRow& row : report.rows)
      EXPECT_TRUE(row.pass) << row.name << ": " << row.error << " above " << row.limit;
    ++files;
  }
  EXPECT_GE(files, kind == "optim" ? 2 : 30);
}

TEST(GoldenLosses, AgreeInF64) { expect_all_pass(golden_losses, "losses", {Device::ref, DType::f64}); }
TEST(GoldenLosses, AgreeInF32) { expect_all_pass(golden_losses, "losses", {Device::cpu, DType::f32}); }
TEST(GoldenOptim, AgreeInF64) { expect_all_pass(golden_optim, "optim", {Device::ref, DType::f64}); }
TEST(GoldenOptim, AgreeInF32) { expect_all_pass(golden_optim, "optim", {Device::cpu, DType::f32}); }

TEST(GoldenLosses, SeeAChangedRecord) {
  nlohmann::json record = read(folder / "losses/dc_ce_batchdice_3d.json");
  record["config"]["batch_dice"] = false;
  EXPECT_FALSE(golden_losses("changed", record, {Device::ref, DType::f64}).pass());
  record = read(folder / "losses/monai_dice_ce_2d.json");
  record["config"]["options"]["jaccard"] = true;
  EXPECT_THROW(golden_losses("changed", record, {Device::ref, DType::f64}), Error);
}

TEST(GoldenOptim, SeeAChangedRecord) {
  nlohmann::json record = read(folder / "optim/optimizers.json");
  for (const char* key : {"sgd_nesterov_nnunet", "adam", "adamw"}) {
    nlohmann::json changed = record;
    changed["cases"] = {{key, record["cases"][key]}};
    changed["cases"][key]["settings"]["weight_decay"] = 1e-3;
    EXPECT_FALSE(golden_optim("changed", changed, {Device::ref, DType::f64}).pass()) << key;
  }
}

}  // namespace
}  // namespace voxlab
