// Run folders, step logs and results on disk.
#include "experiments/run/record.h"

#include <nlohmann/json.hpp>

#include "experiments/config/emit.h"
#include "experiments/config/parse.h"
#include "experiments/run/machine.h"
#include "experiments/run/step_log.h"
#include "tests/experiments/temporary_folder.h"

namespace voxlab {
namespace {

using Record = TemporaryFolder;
using nlohmann::json;

TEST_F(Record, ARunFolderTellsWhereANumberCameFrom) {
  const ConfigNode config = parse_config("rate = 0.5\n", "x");
  RunFolder folder(folder_ / "runs", content_id(config));
  EXPECT_EQ(folder.state(), RunState::absent);
  EXPECT_FALSE(std::filesystem::exists(folder.path()));
  folder.begin(config, 17, "a label");
  json record = folder.record();
  EXPECT_EQ(record["state"], "partial");
  EXPECT_EQ(record["seed"], 17);
  EXPECT_EQ(record["label"], "a label");
  EXPECT_EQ(record["revision"], build_revision());
  EXPECT_EQ(record["dirty"].get<bool>(), build_revision().ends_with("-dirty"));
  EXPECT_GE(record["machine"]["processors"].get<int64_t>(), 1);
  EXPECT_GT(record["machine"]["memory_gib"].get<double>(), 0.1);
  EXPECT_EQ(record["started"].get<std::string>().size(), 20u);
  EXPECT_EQ(read(folder.file("config.toml")), "rate = 0.5\n");
  EXPECT_EQ(error([&] { folder.results(); }), "runs/" + folder.id() + ": the run is partial");

  Results results;
  results["params"] = {
      .value = 42952850, .unit = "", .kind = FigureKind::computed, .source = "meta"};
  results["dice"] = {.value = 0.75, .source = "strict-mm", .spread = 0.125, .n = 6};
  results["hd95"] = {.value = std::numeric_limits<double>::infinity(), .unit = "mm"};
  folder.finish(results);
  EXPECT_EQ(folder.state(), RunState::finished);
  const Results back = RunFolder(folder_ / "runs", folder.id()).results();
  EXPECT_EQ(back.at("params").value, 42952850);
  EXPECT_EQ(back.at("params").kind, FigureKind::computed);
  EXPECT_EQ(back.at("dice").spread, 0.125);
  EXPECT_EQ(back.at("dice").n, 6);
  EXPECT_FALSE(back.at("params").spread.has_value());
  EXPECT_TRUE(std::isinf(back.at("hd95").value));
  EXPECT_TRUE(folder.record().contains("ended"));
}

TEST_F(Record, DamagedFilesAreNamed) {
  const ConfigNode config = parse_config("", "x");
  RunFolder folder(folder_, content_id(config));
  folder.begin(config, 0, "");
  folder.finish({});
  write(folder.id() + "/result.json", R"({"dice": {"value": "many", "kind": "measured"}})");
  EXPECT_EQ(error([&] { folder.results(); }),
            folder.id() + "/result.json: dice.value: expected a number");
  write(folder.id() + "/result.json", R"({"dice": {"value": 1, "kind": "guessed"}})");
  EXPECT_EQ(
      error([&] { folder.results(); }),
      folder.id() + "/result.json: dice.kind: 'guessed' is none of published, computed, measured");
  write(folder.id() + "/record.json", "{\"state\": ");
  EXPECT_EQ(error([&] { folder.state(); }).rfind(folder.id() + "/record.json: not JSON: ", 0), 0u);
}

TEST_F(Record, AStepLogLosesAtMostTheLineThatWasCut) {
  const auto path = folder_ / "steps.jsonl";
  {
    StepLog log(path);
    for (int64_t step = 0; step < 5; ++step)
      log.write({{"step", step}, {"loss", 1.0 / (step + 1)}});
    log.sync();
  }
  std::ofstream(path, std::ios::app) << "{\"step\": 5, \"lo";  // a kill in the middle of a write
  EXPECT_EQ(read_step_log(path).size(), 5u);
  {
    StepLog log(path, 3);  // goes on from the checkpoint before step 3
    log.write({{"step", 3}, {"loss", 0.5}});
  }
  const auto lines = read_step_log(path);
  ASSERT_EQ(lines.size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(lines[i]["step"], i);
  EXPECT_EQ(lines[3]["loss"], 0.5);
  EXPECT_EQ(lines[2]["loss"], 1.0 / 3);
}

TEST_F(Record, AStepLogThatIsNoLogIsAnError) {
  const auto path = write("steps.jsonl", "{\"step\": 1}\nhello\n");
  EXPECT_EQ(error([&] { read_step_log(path); }),
            "steps.jsonl:2: expected a JSON object with a 'step'");
}

TEST_F(Record, TheLockDiesWithItsHolder) {
  {
    RunFolder first(folder_, "a"), second(folder_, "a");
    EXPECT_TRUE(first.lock());
    EXPECT_TRUE(first.lock());
    EXPECT_FALSE(second.lock());
  }
  EXPECT_TRUE(RunFolder(folder_, "a").lock());
}

}  // namespace
}  // namespace voxlab
