// A run that is killed and goes on gives the same bits as one that is not: tried with real kills.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "experiments/config/emit.h"
#include "experiments/run/step_log.h"
#include "experiments/run/train.h"
#include "runtime/core/error.h"
#include "runtime/core/parallel.h"
#include "runtime/train/checkpoint.h"
#include "runtime/train/step.h"
#include "tests/experiments/train_support.h"

namespace voxlab::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* more = R"(
[train]
validation_cases = 1
validate_every = 4
)";

TrainResult train_here(const fs::path& root, const fs::path& run) {
  const ConfigNode resolved = ball_config(root / "balls", more);
  const auto config = read_config<ExperimentConfig>(resolved);
  const TrainingData data = load_training_data(config, root, [](std::string_view) {});
  Network network = make_network(config.net, {.seed = static_cast<uint64_t>(config.seed)});
  fs::create_directories(run);
  return train_network(config, data, network, run, content_id(resolved), {});
}

// This program again, in a process of its own, doing nothing but the training below.
pid_t start_training(const fs::path& root, const fs::path& run) {
  const pid_t child = fork();
  if (child != 0) return child;
  setenv("VOXLAB_TEST_ROOT", root.c_str(), 1);
  setenv("VOXLAB_TEST_RUN", run.c_str(), 1);
  execl("/proc/self/exe", "train_child", "--gtest_filter=TrainChild.DISABLED_Trains",
        "--gtest_also_run_disabled_tests", "--gtest_brief=1", nullptr);
  _exit(127);
}

TEST(TrainChild, DISABLED_Trains) {
  set_thread_count(2);
  train_here(getenv("VOXLAB_TEST_ROOT"), getenv("VOXLAB_TEST_RUN"));
}

bool ended_well(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(TrainResume, AKilledRunGivesTheSameBits) {
  const TemporaryFolder folder;
  const fs::path& root = folder.path();
  write_ball_dataset(root / "balls");
  ASSERT_TRUE(ended_well(start_training(root, root / "whole")));

  std::mt19937 random(std::random_device{}());  // any moment must do
  int kills = 0;
  for (int attempt = 0; attempt < 40; ++attempt) {
    const size_t before = read_step_log(root / "killed/steps.jsonl").size();
    const pid_t child = start_training(root, root / "killed");
    // Wait for a step or two of its own, then some milliseconds more.
    const size_t after = (before / 3) * 3 + 1 + random() % 3;
    bool running = true;
    while (running && read_step_log(root / "killed/steps.jsonl").size() < after) {
      running = waitpid(child, nullptr, WNOHANG) == 0;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (!running) break;  // it came to its end before it could be killed
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 60000));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFEXITED(status)) break;
    ++kills;
  }
  EXPECT_GE(kills, 2);
  ASSERT_TRUE(ended_well(start_training(root, root / "killed")));
  for (const char* name : {"last.safetensors", "best.safetensors"})
    EXPECT_EQ(file_text(root / "whole" / name), file_text(root / "killed" / name)) << name;

  // The logs say the same too, but for the clock.
  const auto a = read_step_log(root / "whole/steps.jsonl"),
             b = read_step_log(root / "killed/steps.jsonl");
  ASSERT_EQ(a.size(), 12U);
  ASSERT_EQ(b.size(), 12U);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i]["step"], static_cast<int64_t>(i));
    for (const char* key : {"step", "loss", "dice", "gradient_norm", "lr"})
      EXPECT_EQ(a[i][key], b[i][key]) << i << key;
    EXPECT_EQ(a[i].contains("validation_dice"), (i + 1) % 4 == 0);
  }
}

TEST(TrainResume, AnotherConfigurationsCheckpointIsRefused) {
  const TemporaryFolder folder;
  write_ball_dataset(folder.path() / "balls");
  const ConfigNode resolved =
      ball_config(folder.path() / "balls", "[train]\nsteps = 1\n[train.schedule]\nwarmup = 0\n");
  const auto config = read_config<ExperimentConfig>(resolved);
  const TrainingData data = load_training_data(config, folder.path(), [](std::string_view) {});
  Network network = make_network(config.net, {});
  train_network(config, data, network, folder.path(), "one", {});
  try {
    train_network(config, data, network, folder.path(), "another", {});
    FAIL() << "was taken";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("configuration one, not of another"),
              std::string::npos)
        << error.what();
  }
}

TEST(TrainCheckpoint, HoldsEverythingOnceAndRefusesAnotherNetwork) {
  const TemporaryFolder folder;
  const auto config = read_config<ExperimentConfig>(ball_config("x"));
  const auto optimizer_config = config.train.optimizer;
  const fs::path file = folder.path() / "a.safetensors";
  const Network one = make_network(config.net, {.seed = 1}),
                two = make_network(config.net, {.seed = 2});
  train::Optimizer of_one = train::make_optimizer(optimizer_config, one.parameters);
  train::Optimizer of_two = train::make_optimizer(optimizer_config, two.parameters);
  Tensors gradients;
  for (const Tensor& each : one.parameters.values())
    gradients.push_back(Tensor::full(each.shape(), 0.25, DType::f32));
  of_one.step(gradients, 0.01);
  train::save_checkpoint(file, one.parameters, of_one, {{"step", 1}});
  EXPECT_EQ(train::read_checkpoint_state(file)["step"], 1);
  EXPECT_EQ(train::load_checkpoint(file, two.parameters, &of_two)["step"], 1);
  for (size_t i = 0; i < one.parameters.all().size(); ++i)
    EXPECT_EQ(one.parameters.all()[i]->value.to_vector(),
              two.parameters.all()[i]->value.to_vector());
  of_one.step(gradients, 0.01);
  of_two.step(gradients, 0.01);
  const auto a = of_one.state(), b = of_two.state();
  for (size_t i = 0; i < a.size(); ++i)
    EXPECT_EQ(a[i].value.to_vector(), b[i].value.to_vector()) << a[i].name;

  // Written behind the back of training: the values at the time of the call, whatever becomes of them.
  const fs::path behind = folder.path() / "b.safetensors";
  train::CheckpointWriter writer;
  writer.save(behind, two.parameters, of_two, {{"step", 2}});
  const auto before = two.parameters.all()[0]->value.to_vector();
  two.parameters.all()[0]->value.copy_from(Tensor::full(two.parameters.all()[0]->value.shape(), 7, DType::f32));
  writer.wait();
  const Network copy = make_network(config.net, {.seed = 3});
  EXPECT_EQ(train::load_checkpoint(behind, copy.parameters, nullptr)["step"], 2);
  EXPECT_EQ(copy.parameters.all()[0]->value.to_vector(), before);
  writer.save(folder.path() / "no such folder" / "c.safetensors", two.parameters, of_two, {});
  EXPECT_THROW(writer.wait(), Error);
  writer.wait();  // said once

  NetConfig other = config.net;
  other.unetr_pp.classes = 4;
  const Network three = make_network(other, {});
  EXPECT_THROW(train::load_checkpoint(file, three.parameters, nullptr), Error);
  other.unetr_pp.attention = unetr_pp::Attention::none;
  EXPECT_THROW(train::load_checkpoint(file, make_network(other, {}).parameters, nullptr), Error);
}

}  // namespace
}  // namespace voxlab::test
