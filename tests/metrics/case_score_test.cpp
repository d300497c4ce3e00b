// Label maps to scores per region, means with their counts, and the JSON written from them.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/metrics/score_json.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

template <class T>
Tensor labels(const Shape& shape, const std::vector<int>& values) {
  const Tensor map = Tensor::zeros(shape, dtype_of<T>);
  for (size_t i = 0; i < values.size(); ++i) map.data<T>()[i] = static_cast<T>(values[i]);
  return map;
}

TEST(CaseScore, RegionsAreUnionsOfLabels) {
  const Tensor p = labels<uint8_t>({1, 2, 4}, {0, 1, 2, 4, 4, 2, 0, 0});
  const Tensor r = labels<int64_t>({1, 2, 4}, {1, 1, 2, 4, 0, 0, 2, 0});
  const std::vector<double> spacing{1, 1, 1};
  const std::vector<Rule> rules{metric_rule("brats"), metric_rule("strict-mm")};
  const auto scores = score_case("case_1", p, r, spacing, brats_regions(), rules);
  ASSERT_EQ(scores.size(), 2u);
  ASSERT_EQ(scores[0].regions.size(), 3u);
  const auto& [wt, tc, et] =
      std::tie(scores[0].regions[0], scores[0].regions[1], scores[0].regions[2]);
  EXPECT_EQ(wt.region, "WT");
  EXPECT_EQ(wt.counts.tp, 3);  // voxels 1, 2, 3
  EXPECT_EQ(wt.counts.fp, 2);  // 4, 5
  EXPECT_EQ(wt.counts.fn, 2);  // 0, 6
  EXPECT_DOUBLE_EQ(wt.scores.dice, 0.6);
  EXPECT_EQ(tc.counts.tp, 2);  // 1, 3
  EXPECT_EQ(tc.counts.fp, 1);  // 4
  EXPECT_EQ(tc.counts.fn, 1);  // 0
  EXPECT_DOUBLE_EQ(et.scores.dice, 2.0 / 3);
  EXPECT_DOUBLE_EQ(scores[1].regions[2].scores.jaccard, 0.5);
}

TEST(CaseScore, PlaneImagesUseTwoAxes) {
  std::vector<int> ring(25, 1), whole(25, 1);
  ring[12] = 0;
  const std::vector<double> spacing{2, 3};
  const std::vector<Region> regions{{"disc", {1}}};
  const std::vector<Rule> rules{metric_rule("strict-mm")};
  const auto s = score_case("slice", labels<int32_t>({5, 5}, ring), labels<int32_t>({5, 5}, whole),
                            spacing, regions, rules);
  // The ring's inner border is one pixel (2 mm) from the frame on one axis.
  EXPECT_DOUBLE_EQ(s[0].regions[0].scores.dice, 48.0 / 49);
  EXPECT_DOUBLE_EQ(s[0].regions[0].scores.hd, 3.0);  // pixels left and right of the hole
}

TEST(CaseScore, BadInputIsRefused) {
  const Tensor a = Tensor::zeros({2, 2, 2}, DType::u8), b = Tensor::zeros({2, 2, 3}, DType::u8);
  const std::vector<double> three{1, 1, 1}, two{1, 1};
  const std::vector<Region> regions{{"one", {1}}};
  const auto run = [&](const Tensor& p, const Tensor& r, const std::vector<double>& spacing) {
    score_case("x", p, r, spacing, regions, metric_rules());
  };
  EXPECT_NO_THROW(run(a, a, three));
  EXPECT_THROW(run(a, b, three), Error);
  EXPECT_THROW(run(a, a, two), Error);
  EXPECT_THROW(run(a, Tensor(), three), Error);
  const Tensor f = Tensor::zeros({2, 2, 2}, DType::f32);
  EXPECT_THROW(run(f, f, three), Error);
}

TEST(Mean, SaysWhatItUsed) {
  const Mean m = mean_of(std::vector<double>{1, NAN, 3, 8});
  EXPECT_DOUBLE_EQ(m.mean, 4);
  EXPECT_DOUBLE_EQ(m.deviation, std::sqrt((9.0 + 1 + 16) / 2));
  EXPECT_EQ(m.median, 3);
  EXPECT_EQ(m.used, 3);
  EXPECT_EQ(m.total, 4);
  const Mean infinite = mean_of(std::vector<double>{1, INFINITY});
  EXPECT_TRUE(std::isinf(infinite.mean));
  EXPECT_EQ(infinite.infinite, 1);
  const Mean none = mean_of(std::vector<double>{NAN});
  EXPECT_TRUE(std::isnan(none.mean));
  EXPECT_EQ(none.used, 0);
  EXPECT_EQ(none.total, 1);
}

CaseScores made_up(const std::string& id, double first, double second) {
  CaseScores out{id, {1, 1, 1}, {{"a", {}, {}}, {"b", {}, {}}}};
  out.regions[0].scores.dice = first;
  out.regions[1].scores.dice = second;
  return out;
}

TEST(Summary, MeansOfRegionsThenOverRegions) {
  const std::vector<CaseScores> cases{made_up("1", 0.9, NAN), made_up("2", 0.7, NAN),
                                      made_up("3", 0.5, 0.1)};
  const Summary s = summarise(cases);
  EXPECT_NEAR(s.regions[0].figures.at("dice").mean, 0.7, 1e-12);
  EXPECT_NEAR(s.regions[1].figures.at("dice").mean, 0.1, 1e-12);
  EXPECT_EQ(s.regions[1].figures.at("dice").used, 1);
  EXPECT_EQ(s.regions[1].figures.at("dice").total, 3);
  EXPECT_NEAR(s.over_regions.at("dice").mean, 0.4, 1e-12);  // all pairs would give 0.55
  EXPECT_EQ(s.over_regions.at("hd95").used, 0);
  const std::vector<CaseScores> mixed{cases[0], {"4", {}, {}}};
  EXPECT_THROW(summarise(mixed), Error);
}

TEST(ScoreJson, RoundTripKeepsNanAndInfinity) {
  CaseScores scores = made_up("case", 0.1, NAN);
  scores.regions[0].scores.hd = INFINITY;
  scores.regions[1].counts = {1, 2, 3, 4};
  const nlohmann::json record = to_json(scores);
  EXPECT_EQ(record["regions"]["b"]["dice"], "nan");
  EXPECT_EQ(record["regions"]["a"]["hd"], "inf");
  const CaseScores back = case_from_json(nlohmann::json::parse(record.dump()));
  EXPECT_EQ(back.id, "case");
  EXPECT_EQ(back.regions[0].region, "a");
  EXPECT_EQ(back.regions[0].scores.dice, 0.1);
  EXPECT_TRUE(std::isinf(back.regions[0].scores.hd));
  EXPECT_TRUE(std::isnan(back.regions[1].scores.dice));
  EXPECT_EQ(back.regions[1].counts.fn, 3);
  auto broken = record;
  broken["regions"]["a"].erase("assd");
  EXPECT_THROW(case_from_json(broken), Error);
  broken = record;
  broken["regions"]["a"]["dice"] = "high";
  EXPECT_THROW(case_from_json(broken), Error);
}

TEST(ScoreJson, ReportStatesRuleAndCounts) {
  const std::vector<CaseScores> cases{made_up("1", 0.9, NAN)};
  const auto report = score_report(metric_rule("brats"), cases);
  EXPECT_EQ(report["rule"]["name"], "brats");
  EXPECT_EQ(report["rule"]["percentile_rule"], "pooled");
  EXPECT_EQ(report["rule"]["hd95"]["missed"], "penalty");
  EXPECT_EQ(report["rule"]["penalty"], 373.13);
  EXPECT_EQ(report["summary"]["regions"]["b"]["dice"]["n_used"], 0);
  EXPECT_EQ(report["summary"]["regions"]["b"]["dice"]["mean"], "nan");
  EXPECT_EQ(report["cases"][0]["case"], "1");
}

}  // namespace
}  // namespace voxlab
