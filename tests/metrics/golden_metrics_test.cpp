// medpy, MONAI, surface-distance and the papers' own scripts on the recorded masks.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "experiments/golden/golden.h"

namespace voxlab {
namespace {

TEST(GoldenMetrics, EveryRecordAgrees) {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(VOXLAB_TEST_DATA "/goldens/metrics")) {
    std::ifstream stream(entry.path());
    const auto report = golden_metrics(entry.path(), nlohmann::json::parse(stream), {});
    EXPECT_TRUE(report.pass());
    for (const GoldenRow& row : report.rows)
      EXPECT_TRUE(row.pass) << entry.path().filename() << " " << row.name << ": " << row.error
                            << " > " << row.limit << " " << row.note;
    ++files;
  }
  EXPECT_EQ(files, 13);
}

TEST(GoldenMetrics, AWrongFigureIsFound) {
  std::ifstream stream(VOXLAB_TEST_DATA "/goldens/metrics/p01_overlap.json");
  auto record = nlohmann::json::parse(stream);
  record["surface"][1]["medpy"]["hd95"] = 3.8859;  // 3.88587...
  EXPECT_FALSE(golden_metrics("p01", record, {}).pass());
  record = nlohmann::json::parse(
      std::ifstream(VOXLAB_TEST_DATA "/goldens/metrics/p04_empty_prediction.json"));
  EXPECT_TRUE(golden_metrics("p04", record, {}).pass());
  record["conventions"]["brats2021_challenge"]["hd95"] = "nan";
  EXPECT_FALSE(golden_metrics("p04", record, {}).pass());
}

}  // namespace
}  // namespace voxlab
