// Suites: expansion, errors with their places, and which cells run again.
#include "experiments/run/sweep.h"

#include <nlohmann/json.hpp>

#include "experiments/config/bind.h"
#include "experiments/config/emit.h"
#include "tests/experiments/temporary_folder.h"

namespace voxlab {
namespace {

enum class Where : uint8_t { none, encoder, both };
constexpr auto enum_names(Where) {
  return std::array{std::pair{std::string_view("none"), Where::none},
                    std::pair{std::string_view("encoder"), Where::encoder},
                    std::pair{std::string_view("both"), Where::both}};
}

struct NetPart {
  Where attention = Where::both;
  int64_t width = 8;
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("attention", s.attention);
    v("width", s.width);
  }
};

struct Whole {
  int64_t seed = 0;
  double rate = 0.5;
  NetPart net;
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("seed", s.seed);
    v("rate", s.rate);
    v("net", s.net);
  }
};

class Sweep : public TemporaryFolder {
 protected:
  std::vector<SweepCell> cells(std::string_view text, std::vector<std::string> set = {}) {
    return expand(load_suite(write("s.toml", text), set), resolve<Whole>);
  }
  std::string error_of(std::string_view text, std::vector<std::string> set = {}) {
    return error([&] { cells(text, set); });
  }
};

constexpr std::string_view two_by_two = R"toml(rate = 0.25
[axes]
"net.attention" = ["none", "both"]
seed = [7, 8]
[labels]
"net.attention.both" = "EPA (paper)"
)toml";

TEST_F(Sweep, TheFirstAxisVariesSlowest) {
  const auto all = cells(two_by_two);
  ASSERT_EQ(all.size(), 4u);
  std::vector<std::string> labels;
  for (const SweepCell& cell : all) labels.push_back(cell.label());
  EXPECT_EQ(labels, (std::vector<std::string>{"attention=none, seed=7", "attention=none, seed=8",
                                              "EPA (paper), seed=7", "EPA (paper), seed=8"}));
  const Whole last = read_config<Whole>(all[3].config);
  EXPECT_EQ(last.net.attention, Where::both);
  EXPECT_EQ(last.seed, 8);
  EXPECT_EQ(last.rate, 0.25);
  EXPECT_EQ(last.net.width, 8);  // a default is written out
  EXPECT_EQ(all[3].seed, 8);
  EXPECT_EQ(all[2].id, content_id(to_node(Whole{.seed = 7, .rate = 0.25})));
  const Suite suite = load_suite(write("s.toml", two_by_two));
  EXPECT_EQ(suite.table.rows, std::vector<std::string>{"net.attention"});
}

TEST_F(Sweep, IdsDoNotDependOnHowTheFileIsWritten) {
  const auto a = cells(two_by_two);
  const auto b =
      cells("[axes]\nnet.attention = [\"none\", \"both\"]\nseed = [7, 8]\n", {"rate=0.25"});
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(a[i].id, b[i].id);
}

TEST_F(Sweep, WithoutAxesThereIsOneCell) {
  const auto all = cells("rate = 1\n");
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].label(), all[0].id);
}

TEST_F(Sweep, ErrorsHaveTheirPlace) {
  EXPECT_EQ(error_of("[axes]\n\"net.atention\" = [\"none\"]\n"),
            "s.toml:2:1: unknown key 'net.atention'; nearest known key 'net.attention'");
  EXPECT_EQ(error_of("[axes]\n\"nte.attention\" = [\"none\"]\n"),
            "s.toml:2:1: unknown key 'nte'; nearest known key 'net'");
  EXPECT_EQ(error_of("[axes]\nseed = [1]\n\"net.attention\" = []\n"),
            "s.toml:3:1: axis 'net.attention' has no values, so the sweep would be empty");
  EXPECT_EQ(error_of("[axes]\n\"net.attention\" = [\"none\"]\nnet.attention = [\"both\"]\n"),
            "s.toml:3:5: axis 'net.attention' stands already at s.toml:2:1");
  EXPECT_EQ(error_of("[axes]\nseed = [1]\nseed = [2]\n").rfind("s.toml:3:", 0), 0u);
  EXPECT_EQ(error_of("[axes]\nseed = 3\n"),
            "s.toml:2:1: axis 'seed': expected an array of values, got an integer");
  EXPECT_EQ(error_of("[axes]\n\"net.attention\" = [\"none\",\n  \"boht\"]\n"),
            "s.toml:3:3: net.attention: 'boht' is none of none, encoder, both; nearest 'both'");
  EXPECT_EQ(error_of("[axes]\n\"seed.x\" = [1]\nseed = [1]\n"),
            "s.toml:3:1: axis 'seed' and axis 'seed.x' (s.toml:2:1) set the same key");
  EXPECT_EQ(error_of("raet = 1\n[axes]\nseed = [1]\n"),
            "s.toml:1:1: unknown key 'raet'; nearest known key 'rate'");
  EXPECT_EQ(error_of("[axes]\nseed = [1, 2, 1]\n"),
            "s.toml: cells 1 and 3 are the same configuration (seed=1)");
  EXPECT_EQ(error_of("[axes]\nseed = [1]\n[labels]\n\"seed.2\" = \"x\"\n"),
            "s.toml:4:1: unknown label 'seed.2'; nearest known label 'seed.1'");
  EXPECT_EQ(error_of("[axes]\nseed = [1]\n[table]\nrows = [\"sed\"]\n"),
            "s.toml:4:9: table.rows: unknown axis 'sed'; nearest known axis 'seed'");
  EXPECT_EQ(error_of("[axes]\nseed = [1]\n[table]\nrosw = [\"seed\"]\n"),
            "s.toml:4:1: unknown key 'table.rosw'; nearest known key 'table.rows'");
  EXPECT_EQ(error_of("[axes]\nseed = [1]\n", {"seed=4"}),
            "--set seed=4: 'seed' is an axis of this suite");
}

TEST_F(Sweep, AHugeProductIsRefusedBeforeItIsBuilt) {
  std::string values = "0";
  for (int i = 1; i < 500; ++i) values += "," + std::to_string(i);
  EXPECT_EQ(error_of("[axes]\nseed = [" + values + "]\nrate = [" + values + "]\n"),
            "s.toml:3:1: the axes up to 'rate' make more than 100000 cells");
}

TEST_F(Sweep, FinishedCellsAreSkippedFailedAndPartialOnesRunAgain) {
  const auto all = cells(two_by_two);
  const auto runs = folder_ / "runs";
  std::vector<std::string> ran, events;
  bool fail_second = true;
  const auto cell = [&](const SweepCell& c, RunFolder& folder) {
    ran.push_back(c.label());
    EXPECT_EQ(read(folder.file("config.toml")), to_toml(c.config));
    if (fail_second && c.id == all[1].id) throw Error("loss", "not finite at step 3");
    return Results{{"dice", {.value = 0.5, .unit = "", .source = "test"}}};
  };
  const auto report = [&](const SweepEvent& event) {
    if (event.kind == SweepEvent::Kind::end) events.push_back(event.error);
  };
  // One that a kill left behind.
  {
    RunFolder folder(runs, all[2].id);
    folder.begin(all[2].config, 7, "x");
    EXPECT_EQ(folder.state(), RunState::partial);
  }
  SweepSummary summary = run_sweep(all, runs, cell, report);
  EXPECT_EQ(summary.done, 3);
  EXPECT_EQ(summary.failed, 1);
  EXPECT_FALSE(summary.complete());
  EXPECT_EQ(events[1], "loss: not finite at step 3");
  EXPECT_EQ(RunFolder(runs, all[1].id).state(), RunState::failed);
  EXPECT_EQ(RunFolder(runs, all[1].id).error(), "loss: not finite at step 3");
  EXPECT_EQ(RunFolder(runs, all[2].id).record()["starts"].size(), 2u);

  ran.clear();
  fail_second = false;
  summary = run_sweep(all, runs, cell, report);
  EXPECT_EQ(ran, std::vector<std::string>{"attention=none, seed=8"});
  EXPECT_EQ(summary.done, 1);
  EXPECT_EQ(summary.skipped, 3);
  EXPECT_EQ(RunFolder(runs, all[1].id).error(), "");
  EXPECT_EQ(RunFolder(runs, all[1].id).results().at("dice").value, 0.5);
}

TEST_F(Sweep, ACellThatAnotherProcessHoldsIsLeftAlone) {
  const auto all = cells("rate = 1\n");
  RunFolder held(folder_, all[0].id);
  ASSERT_TRUE(held.lock());
  const auto never = [](const SweepCell&, RunFolder&) -> Results { throw Error("test", "ran"); };
  SweepSummary summary = run_sweep(all, folder_, never, [](const SweepEvent&) {});
  EXPECT_EQ(summary.busy, 1);
}

}  // namespace
}  // namespace voxlab
