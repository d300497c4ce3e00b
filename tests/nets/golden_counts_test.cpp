// Parameters, counting tools' figures and memory of the paper-size networks, on meta.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "experiments/golden/count_table.h"
#include "experiments/golden/golden.h"
#include "experiments/run/count.h"
#include "experiments/run/timing.h"

namespace voxlab {
namespace {

const std::string records = VOXLAB_TEST_DATA "/goldens";

class GoldenCounts : public testing::TestWithParam<std::pair<const char*, size_t>> {};

// Parameters exactly, every figure of every tool within 0.1 %.
TEST_P(GoldenCounts, ParametersAndToolsAgree) {
  const auto [net, rows] = GetParam();
  const std::string file = records + "/" + net + "/counts.json";
  std::ifstream in(file);
  const GoldenReport report = golden_counts(file, nlohmann::json::parse(in), {});
  EXPECT_EQ(report.rows.size(), rows);
  for (const GoldenRow& row : report.rows)
    EXPECT_TRUE(row.pass) << row.name << " error " << row.error << " limit " << row.limit;
}

INSTANTIATE_TEST_SUITE_P(, GoldenCounts,
                         testing::Values(std::pair{"unetr_pp", size_t{288}}, std::pair{"ux_net", size_t{180}},
                                         std::pair{"levit_unet", size_t{122}}, std::pair{"brats_unet", size_t{123}},
                                         std::pair{"dae_former", size_t{50}}),
                         [](const auto& info) { return info.param.first; });

// The table in the repository is what `voxlab count --table` makes of the records.
TEST(Count, TheTableIsUpToDate) {
  std::ifstream in(VOXLAB_SOURCE_DIR "/results/tables/counts.md");
  std::stringstream text;
  text << in.rdbuf();
  EXPECT_EQ(text.str(), count_table(records));
}

double counted(const NetConfig& config, CountMode mode, std::string_view rule) {
  return total(count_network(config, mode).rows, count_rule(rule));
}

// How the papers' figures come about: [docs/counting.md].
TEST(Count, PublishedFigures) {
  const NetConfig synapse = net_preset("unetr_pp", "synapse");
  EXPECT_EQ(counted(synapse, CountMode::inference, "fvcore"), 47885778944);
  EXPECT_EQ(counted(synapse, CountMode::training_forward, "fvcore"), 47935619072);  // printed: 47.98 G

  NetConfig flare = net_preset("ux_net", "flare");  // printed: 53.0 M of the grouped, 639.4 G of the dense one
  EXPECT_EQ(count_network(flare, CountMode::inference).parameters, 53006069);
  EXPECT_NEAR(counted(flare, CountMode::inference, "ptflops-0.6"), 631.80e9, 0.005e9);
  flare.ux_net.scaling = ux_net::Scaling::dense;
  EXPECT_EQ(count_network(flare, CountMode::inference).parameters, 56127989);
  EXPECT_NEAR(counted(flare, CountMode::inference, "ptflops-0.6"), 639.33e9, 0.005e9);

  EXPECT_NEAR(counted(net_preset("levit_unet", "384"), CountMode::inference, "ptflops-0.6"), 25.55e9, 0.005e9);
  EXPECT_NEAR(counted(net_preset("dae_former", "synapse_as_written"), CountMode::inference, "fvcore"), 27.89e9,
              0.005e9);
}

// Every gradient of a convolution or product costs what the forward does: a training step is at most
// three forwards, and at least two (the first layers need no input gradient).
TEST(Count, ATrainingStepIsTwoToThreeForwards) {
  for (const std::string& net : net_names()) {
    const NetConfig config = net_preset(net, "");
    const double ratio =
        counted(config, CountMode::training_step, "mac") / counted(config, CountMode::inference, "mac");
    EXPECT_GT(ratio, 2) << net;
    EXPECT_LE(ratio, 3) << net;
  }
}

// Rule mac has a line for every op with multiply-adds, and explanations lose nothing at paper size.
TEST(Count, RulesCoverTheNetworks) {
  for (const std::string& net : net_names()) {
    const auto rows = count_network(net_preset(net, ""), CountMode::training_step).rows;
    int64_t macs = 0, flops = 0;
    for (const LedgerRow& row : rows) macs += row.cost.macs, flops += row.cost.flops;
    EXPECT_EQ(total(rows, count_rule("mac")), static_cast<double>(macs)) << net;
    EXPECT_EQ(total(rows, count_rule("flop")), static_cast<double>(flops)) << net;
    for (const CountRule& to : count_rules()) {
      double sum = static_cast<double>(macs);
      for (const Cause& cause : explain(rows, count_rule("mac"), to)) sum += cause.amount;
      EXPECT_EQ(sum, total(rows, to)) << net << " " << to.name;
    }
  }
}

NetConfig small(const std::string& net) {
  NetConfig config = net_preset(net, "");
  if (net == "unetr_pp") {
    unetr_pp::Config& c = config.unetr_pp;
    c.image = {32, 64, 64};
    c.feature_size = 8;
    c.dims = {16, 32, 64, 128};
    c.encoder_depths = {1, 1, 1, 1};
    c.decoder_depths = {1, 1, 1};
  } else {
    brats_unet::Config& c = config.brats_unet;
    c.image = {32, 32, 32};
    c.base_features = 8;
    c.num_pool = 3;
  }
  return config;
}

// The peak that meta tensors predict is what the allocator measures when the network runs.
TEST(Count, PredictedPeakMemoryIsMeasured) {
  for (const char* net : {"unetr_pp", "brats_unet"})
    for (CountMode mode : {CountMode::inference, CountMode::training_step}) {
      for (bool recompute : {false, true}) {
        const bool training = mode == CountMode::training_step;
        if (recompute && !training) continue;
        const NetConfig config = small(net);
        const auto predicted = static_cast<double>(count_network(config, mode, 1, DType::f32, recompute).peak_bytes);
        const int64_t before = memory_report(Device::cpu).current;
        NetworkWork work(config,
                         {.training = training, .all_outputs = true, .plan = false, .recompute = recompute});
        reset_peak(Device::cpu);
        work.run();
        const auto measured = static_cast<double>(memory_report(Device::cpu).peak - before);
        EXPECT_NEAR(predicted / measured, 1, 0.05) << net << " " << to_string(mode) << " recompute=" << recompute;
      }
    }
}

}  // namespace
}  // namespace voxlab
