// The suites that ship: every one expands, every cell resolves, and costs what independent counts
// say.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "experiments/report/plan_table.h"
#include "experiments/run/experiment.h"

namespace voxlab {
namespace {

namespace fs = std::filesystem;

const fs::path suites = VOXLAB_SOURCE_DIR "/experiments/suites";
const TableSources sources{.runs = "no/such/folder",
                           .published = VOXLAB_SOURCE_DIR "/results/published"};

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".toml") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

TEST(Suites, EveryOneExpandsAndEveryCellResolves) {
  for (const fs::path& folder : {suites, suites / "base"}) {
    const auto files = files_in(folder);
    EXPECT_GE(files.size(), 5u);
    for (const fs::path& file : files) {
      SCOPED_TRACE(file.string());
      const Suite suite = load_suite(file);
      size_t expected = 1;
      for (const SweepAxis& axis : suite.axes) expected *= axis.values.size();
      EXPECT_EQ(expand(suite, resolve_experiment).size(), expected);
      EXPECT_EQ(suite.axes.empty(), suite.table.title.empty());
    }
  }
}

// Every suite with a table can be planned: its rows, columns and published rows exist.
TEST(Suites, EveryTableStandsBesidePublishedNumbers) {
  for (const fs::path& file : files_in(suites)) {
    SCOPED_TRACE(file.string());
    const Suite suite = load_suite(file);
    if (suite.axes.empty()) continue;
    const auto cells = expand(suite, resolve_experiment);
    const std::vector<Results> free(
        cells.size(), {{"params", {}}, {"macs", {}}, {"memory", {}}, {"train_memory", {}}});
    EXPECT_EQ(plan_table(suite, cells, free, sources).rows().size(), cells.size());
    EXPECT_EQ(plan_json(suite, cells, free, sources).size(), cells.size());
    suite_table(suite, cells, sources);
  }
}

// Millions of parameters, and giga-operations by the suite's rule: from the authors' code, counted
// by the tool named (results/published, tables efficiency_computed and ablation_*; records'
// counts.json).
struct Known {
  const char* suite;
  size_t cell;
  double params, macs;  // macs 0: none known
};

TEST(Suites, CostWhatTheAuthorsCodeCosts) {
  constexpr Known known[] = {
      {"unetr_pp_epa", 9, 42.952850, 47.8858},  // fvcore, evaluation
      {"ux_net_kernel", 0, 53.006, 631.80},     // ptflops 0.6.9
      {"ux_net_kernel", 3, 53.56, 0},
      {"ux_net_kernel", 6, 54.43, 0},
      {"ux_net_kernel", 9, 55.68, 0},
      {"ux_net_kernel", 12, 65.85, 757.55},
      {"ux_net_scaling", 0, 56.128, 639.33},
      {"levit_unet_size", 0, 15.904715, 17.551},
      {"levit_unet_size", 3, 19.904670, 0},  // that file registers its blocks twice
      {"levit_unet_size", 6, 52.166029, 25.547},
      {"dae_former_attention", 18, 48.073065, 27.886},  // fvcore
      {"brats_unet", 0, 31.198, 482.8},
      {"brats_unet", 3, 87.414, 1671.18},
      {"brats_unet", 6, 50.562, 538.1},  // 529.51 and 8.6 of attention products
  };
  for (const Known& each : known) {
    SCOPED_TRACE(std::string(each.suite) + ", cell " + std::to_string(each.cell));
    const Suite suite = load_suite(suites / (std::string(each.suite) + ".toml"));
    const auto cells = expand(suite, resolve_experiment);
    ASSERT_LT(each.cell, cells.size());
    const Results cost = cell_costs(suite, std::span(cells).subspan(each.cell, 1)).front();
    EXPECT_NEAR(cost.at("params").value * 1e-6, each.params, each.params < 53 ? 6e-4 : 6e-3);
    if (each.macs != 0) {
      EXPECT_NEAR(cost.at("macs").value * 1e-9, each.macs, 6e-4 * each.macs);
    }
    EXPECT_GT(cost.at("memory").value, 4 * cost.at("params").value);
    EXPECT_GT(cost.at("train_memory").value, cost.at("memory").value);
  }
}

TEST(Suites, APlanHasPublishedFiguresWithTheirSource) {
  const Suite suite = load_suite(suites / "ux_net_kernel.toml");
  const auto cells = expand(suite, resolve_experiment);
  const auto costs = cell_costs(suite, cells);
  const auto plan = plan_json(suite, cells, costs, sources);
  EXPECT_EQ(plan[0]["published"]["params"]["value"], 53.0);
  EXPECT_EQ(plan[0]["published"]["dice"]["value"], 93.4);  // printed as 0.934
  EXPECT_EQ(plan[0]["published"]["dice"]["unit"], "percent");
  EXPECT_TRUE(plan[3]["published"]["dice"].is_null());  // kernel 9: in no source
  EXPECT_EQ(plan[12]["published"]["macs"]["value"], 757.6);
  EXPECT_NE(plan[12]["published"]["macs"]["source"].get<std::string>().find("followup"),
            std::string::npos);
  EXPECT_EQ(plan[12]["figures"]["params"]["kind"], "computed");
  const std::string text = print(plan_table(suite, cells, costs, sources), TableFormat::text);
  EXPECT_NE(text.find("93.4 [1]"), std::string::npos) << text;
  EXPECT_NE(text.find("not found"), std::string::npos);
}

}  // namespace
}  // namespace voxlab
