// Parameters and counting tools' figures of the paper-size networks, on meta.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "experiments/golden/golden.h"
#include "experiments/run/count.h"

namespace voxlab {
namespace {

TEST(GoldenCounts, ParametersAndToolsAgree) {
  const std::string file = VOXLAB_TEST_DATA "/goldens/unetr_pp/counts.json";
  std::ifstream in(file);
  const GoldenReport report = golden_counts(file, nlohmann::json::parse(in), {});
  EXPECT_EQ(report.rows.size(), 9u * 4u);  // nine networks: parameters and three figures each
  for (const GoldenRow& row : report.rows)
    EXPECT_TRUE(row.pass) << row.name << " error " << row.error << " limit " << row.limit;
}

// The figure that fvcore prints for the released Synapse network, in both modes: 47.89 G and 47.94 G.
TEST(Count, SynapseByFvcore) {
  const NetConfig config = net_preset("unetr_pp", "synapse");
  const auto total = [&](CountMode mode) {
    return totals(count_network(config, mode).rows, count_rule("fvcore"), 0).at(0).count;
  };
  EXPECT_EQ(total(CountMode::inference), 47885778944.0);
  EXPECT_NEAR(total(CountMode::training_forward), 47.94e9, 0.005e9);
  EXPECT_EQ(count_network(config, CountMode::inference).parameters, 42952850);
}

// Every gradient of a convolution or product costs what the forward does: a training step is at most
// three forwards, and at least two (the first layers need no input gradient).
TEST(Count, ATrainingStepIsTwoToThreeForwards) {
  const NetConfig config = net_preset("unetr_pp", "synapse");
  const auto macs = [&](CountMode mode) {
    return totals(count_network(config, mode).rows, count_rule("mac"), 0).at(0).count;
  };
  const double ratio = macs(CountMode::training_step) / macs(CountMode::inference);
  EXPECT_GT(ratio, 2);
  EXPECT_LE(ratio, 3);
}

}  // namespace
}  // namespace voxlab
