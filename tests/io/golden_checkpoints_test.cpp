// The records of checkpoint files agree, and golden_checkpoints notices when they do not.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "experiments/golden/golden.h"
#include "tests/io/archive.h"

namespace voxlab {
namespace {

using nlohmann::json;
using test::golden_folder;

json load(const char* name) { return json::parse(std::ifstream(golden_folder() / name)); }

GoldenReport check(const char* name, const json& record) {
  return golden_checkpoints(golden_folder() / name, record, {});
}

void expect_all_pass(const GoldenReport& report, size_t least_rows) {
  EXPECT_GE(report.rows.size(), least_rows);
  for (const GoldenRow& row : report.rows) EXPECT_TRUE(row.pass) << row.name << ": " << row.note;
}

// The record of one file with one change must fail in exactly the row of that name.
void expect_one_failure(json file, const std::string& row_name) {
  const GoldenReport report = check("expected.json", {{"files", {std::move(file)}}});
  EXPECT_FALSE(report.pass());
  for (const GoldenRow& row : report.rows)
    EXPECT_EQ(row.pass, row.name != row_name) << row.name << ": " << row.note;
}

json expected_file(const std::string& name) {
  const json record = load("expected.json");
  for (const json& file : record.at("files"))
    if (file.at("file") == name) return file;
  return {};
}

TEST(GoldenCheckpoints, ExpectedFilesAgree) {
  expect_all_pass(check("expected.json", load("expected.json")), 200);
}

TEST(GoldenCheckpoints, HostileFilesAreRefusedWithAReason) {
  const json record = load("hostile.json");
  expect_all_pass(check("hostile.json", record), record.at("files").size());
}

TEST(GoldenCheckpoints, NoticesAWrongSample) {
  json file = expected_file("small_zip.pth");
  json& sample = file["tensors"][0]["samples"][3][1];
  sample = sample.get<double>() * (1 + 1e-6);
  expect_one_failure(file, "small_zip.pth: stem.0.weight");
}

TEST(GoldenCheckpoints, NoticesAWrongProbe) {
  json file = expected_file("small.safetensors");
  json& probe = file["tensors"][7]["probe"];
  probe = probe.get<double>() * (1 + 1e-9);
  expect_one_failure(file, "small.safetensors: body.0.weight");
}

TEST(GoldenCheckpoints, NoticesAWrongFormOrSharing) {
  json stride = expected_file("small_legacy.pth");
  stride["tensors"] = expected_file("small_zip.pth")["tensors"];
  stride["tensors"][0]["stride"][0] = 26;
  expect_one_failure(stride, "small_legacy.pth: stem.0.weight");
  json sharing = expected_file("small_zip.pth");
  sharing["shared_storage"][0].push_back("exotic.t_scalar");
  expect_one_failure(sharing, "small_zip.pth: shared storages");
}

TEST(GoldenCheckpoints, NoticesAWrongPlainValue) {
  json file = expected_file("nnunet_style.model");
  file["plain"]["best_stuff"]["tuple"][1]["value"] = -0.43;
  expect_one_failure(file, "nnunet_style.model: best_stuff");
  json missing = expected_file("parameters_and_plain.pth");
  missing["plain"]["absent"] = 1;
  expect_one_failure(missing, "parameters_and_plain.pth: absent");
}

TEST(GoldenCheckpoints, NoticesAFileThatShouldHaveBeenRefused) {
  const json file = {{"file", "hostile/control_zip.pth"}, {"must", "refuse"}};
  EXPECT_FALSE(check("hostile.json", {{"files", {file}}}).pass());
  const json other = {{"file", "hostile/eval_global.pth"}, {"must", "load"}};
  EXPECT_FALSE(check("hostile.json", {{"files", {other}}}).pass());
}

TEST(GoldenCheckpoints, AMissingFileIsAFailedRow) {
  const json file = {{"file", "nowhere.pth"}, {"tensors", json::array()}};
  EXPECT_FALSE(check("expected.json", {{"files", {file}}}).pass());
}

}  // namespace
}  // namespace voxlab
