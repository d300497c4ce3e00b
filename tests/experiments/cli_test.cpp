// The program's command line: exit codes, one-line errors, help, and golden and sweep from outside.
#include <sys/wait.h>

#include <nlohmann/json.hpp>

#include "runtime/io/safetensors.h"
#include "tests/experiments/temporary_folder.h"

#ifdef VOXLAB_PROGRAM

namespace voxlab {
namespace {

struct Outcome {
  int code = -1;
  std::string out, err;
};

class Cli : public TemporaryFolder {
 protected:
  // Runs the program in this test's folder.
  Outcome run(const std::string& arguments) {
    const std::string command = "cd '" + folder_.string() + "' && '" VOXLAB_PROGRAM "' " +
                                arguments + " > out.txt 2> err.txt";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read(folder_ / "out.txt"),
            read(folder_ / "err.txt")};
  }
};

constexpr const char* commands[] = {"train",  "predict", "evaluate", "count", "golden",
                                    "import", "export",  "sweep",    "table", "time", "profile"};

TEST_F(Cli, EverySubCommandExplainsItself) {
  const Outcome all = run("--help");
  EXPECT_EQ(all.code, 0);
  EXPECT_NE(all.out.find("Exit codes: 0 done; 1 done, and the answer is no"), std::string::npos);
  for (const std::string command : commands) {
    EXPECT_NE(all.out.find("\n  " + command + " "), std::string::npos) << command;
    const Outcome one = run(command + " --help");
    EXPECT_EQ(one.code, 0) << command;
    EXPECT_NE(one.out.find("--json"), std::string::npos) << command;
    EXPECT_NE(one.out.find("--threads"), std::string::npos) << command;
    EXPECT_EQ(one.err, "") << command;
  }
}

TEST_F(Cli, WrongUseIsOneLineAndExitCodeTwo) {
  for (const char* wrong : {"", "trian", "golden", "golden no_such_file.json", "sweep no_such.toml",
                            "golden --backend gpu .", "golden --threads 0 .", "count --rule"}) {
    const Outcome outcome = run(wrong);
    EXPECT_EQ(outcome.code, 2) << wrong;
    EXPECT_EQ(outcome.out, "") << wrong;
    EXPECT_EQ(outcome.err.rfind("voxlab: ", 0), 0u) << wrong << ": " << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << wrong;
  }
}

TEST_F(Cli, ASettingThatIsNoneOfTheNetworkIsRefused) {
  for (const char* wrong : {"image=[32,32,32]", "unetr_pp.heads=2", "ux_net.depth=3"}) {
    const Outcome outcome = run(std::string("count ux_net --set ") + wrong);
    EXPECT_EQ(outcome.code, 2) << wrong;
    EXPECT_NE(outcome.err.find("ux_net"), std::string::npos) << outcome.err;
  }
  EXPECT_EQ(run("count ux_net --set ux_net.kernel=3").code, 0);
}

TEST_F(Cli, AnUnknownKeyOfASuiteIsSaidWithItsPlace) {
  write("s.toml", "seed = 1\n[train]\nstesp = 4\n");
  const Outcome outcome = run("sweep s.toml --dry-run");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.err,
            "voxlab: s.toml:3:1: unknown key 'train.stesp'; nearest known key 'train.steps'\n");
}

TEST_F(Cli, TheShippedSuitesExpand) {
  const std::string suites = VOXLAB_SOURCE_DIR "/experiments/suites/";
  const std::pair<const char*, size_t> expected[] = {{"unetr_pp_epa.toml", 12},
                                                     {"unetr_pp_epa_small.toml", 4}};
  for (const auto& [name, cells] : expected) {
    const Outcome outcome = run("sweep --json --dry-run " + suites + name);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const auto json = nlohmann::json::parse(outcome.out);
    ASSERT_EQ(json.size(), cells) << name;
    EXPECT_EQ(json[0]["config"]["unetr_pp"]["attention"], "none");
    EXPECT_EQ(json[0]["state"], "absent");
    EXPECT_EQ(json[cells - 1]["config"]["unetr_pp"]["attention"], "both");
    EXPECT_GT(json[cells - 1]["figures"]["params"]["value"], json[0]["figures"]["params"]["value"]);
    EXPECT_EQ(json[0]["published"].size(), 0u);  // there is no results/published here
    EXPECT_NE(outcome.err.find("no published numbers"), std::string::npos);
    const Outcome table =
        run("table " + suites + name + " --published " VOXLAB_SOURCE_DIR "/results/published");
    EXPECT_EQ(table.code, 0) << table.err;
    EXPECT_NE(table.out.find("87.22 [1]"), std::string::npos);  // UNETR++ on Synapse, as published
    EXPECT_NE(table.out.find("not found"), std::string::npos);  // encoder only: in no source
  }
}

TEST_F(Cli, ExportWritesOnnxOrSaysWhyNot) {
  const Outcome neither = run("export --onnx a.onnx");
  EXPECT_EQ(neither.code, 2);
  EXPECT_EQ(neither.err, "voxlab: export: expected a run's folder, or a network by --net\n");
  EXPECT_EQ(run("export . --net unetr_pp --onnx a.onnx").code, 2);
  const std::string net = "--config " VOXLAB_TEST_DATA "/export/small/unetr_pp_synapse.toml ";
  write("other.safetensors", std::string("\x02\0\0\0\0\0\0\0{}", 10));
  const Outcome lacking = run("export " + net + "--weights other.safetensors --onnx a.onnx");
  EXPECT_EQ(lacking.code, 2);
  EXPECT_EQ(lacking.err, "voxlab: other.safetensors: lacks encoder.stem.conv.weight\n");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "a.onnx"));
  const Outcome written = run("export --json " + net + "--onnx a.onnx --check a.safetensors");
  ASSERT_EQ(written.code, 0) << written.err;
  const auto json = nlohmann::json::parse(written.out);
  EXPECT_EQ(json["bytes"], std::filesystem::file_size(folder_ / "a.onnx"));
  EXPECT_EQ(json["weights"], "none: initialised with seed 0");
  EXPECT_EQ(json["nodes"]["Softmax"], 14);  // two of each of 4 + 3 blocks
  EXPECT_TRUE(std::filesystem::exists(folder_ / "a.safetensors"));
}

// The pair that export writes (its network op by op) and what time makes of weights and image (a plan).
TEST_F(Cli, TimeTakesWeightsAndImageAndWritesLogits) {
  const std::string net = "--config " VOXLAB_TEST_DATA "/export/small/unetr_pp_synapse.toml ";
  ASSERT_EQ(run("export " + net + "--onnx a.onnx --check a.safetensors").code, 0);
  const Outcome timed = run("time " + net + "--warmup 0 --repeats 1 --image a.safetensors --logits b.safetensors");
  ASSERT_EQ(timed.code, 0) << timed.err;
  const std::vector<double> expected = SafetensorsFile(folder_ / "a.safetensors").read("logits").to_vector();
  const std::vector<double> got = SafetensorsFile(folder_ / "b.safetensors").read("logits").to_vector();
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1e-4) << i;
  // In a volume no larger than the window there is one window, whose Gaussian weights cancel.
  const std::string files = "--image a.safetensors --logits c.safetensors";
  ASSERT_EQ(run("time " + net + "--volume --warmup 0 --repeats 1 " + files).code, 0);
  const std::vector<double> whole = SafetensorsFile(folder_ / "c.safetensors").read("logits").to_vector();
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(whole[i], expected[i], 1e-4) << i;
  EXPECT_EQ(run("time " + net + "--volume --training").code, 2);
  const Outcome wrong = run("time ux_net --image a.safetensors --warmup 0 --repeats 1");
  EXPECT_EQ(wrong.code, 2);
  EXPECT_EQ(wrong.err.rfind("voxlab: image: is ", 0), 0u) << wrong.err;
}

constexpr std::string_view wrong_record =
    R"({"schema": 1, "net": "optim", "case": "schedules", "config": {},
  "origin": {}, "schedules": []})";

TEST_F(Cli, GoldenTellsAgreementByItsExitCode) {
  write("other.json", "{\"a\": 1}");
  write("broken.json", "{");
  write("empty/readme.txt", "");
  Outcome outcome = run("golden other.json");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.out,
            "FAIL  other.json  other.json: not a reference record: none of the known kinds has "
            "these keys\n");
  outcome = run("golden broken.json");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_NE(outcome.out.find("not JSON"), std::string::npos);
  outcome = run("golden empty");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.err, "voxlab: empty: the folder holds no record (no .json file)\n");
  write("schedules.json", wrong_record);
  outcome = run("golden --json schedules.json other.json");
  EXPECT_EQ(outcome.code, 1);
  const auto json = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(json["pass"], false);
  EXPECT_EQ(json["files"].size(), 2u);
  EXPECT_EQ(json["backend"], "cpu");
  EXPECT_EQ(json["dtype"], "f32");
  EXPECT_EQ(nlohmann::json::parse(run("golden --json --backend ref other.json").out)["dtype"],
            "f64");
}

TEST_F(Cli, GoldenChecksRecordsAndWholeFolders) {
  const std::string goldens = VOXLAB_TEST_DATA "/goldens/";
  for (const char* folder : {"nifti", "checkpoints", "metrics", "optim"}) {
    if (!std::filesystem::exists(goldens + folder)) continue;
    const Outcome outcome = run("golden -q " + goldens + folder);
    EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  }
}

}  // namespace
}  // namespace voxlab

#endif
