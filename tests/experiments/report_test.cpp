// Tables in each format, published rows, suite tables, progress lines, pictures.
#include <png.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "experiments/config/bind.h"
#include "experiments/config/parse.h"
#include "experiments/report/image.h"
#include "experiments/report/progress.h"
#include "experiments/report/published.h"
#include "experiments/report/suite_table.h"
#include "tests/experiments/temporary_folder.h"

namespace voxlab {
namespace {

using Report = TemporaryFolder;

Table small_table() {
  Table table("Title",
              {{"net", "network", false}, {"dice", "Dice (%)", true}, {"p", "published", true}});
  table.add_row(
      {Cell::of("a|b, \"c\""),
       Cell::of({.value = 81.256, .unit = "percent", .source = "rule r", .spread = 0.5, .n = 3}, 2),
       Cell::of({.value = 87.2, .kind = FigureKind::published, .source = "paper, table 1"}, 1)});
  table.add_row({Cell::of("größer"), Cell::of({.value = 42.9, .kind = FigureKind::computed}, 2),
                 Cell::of("")});
  table.add_row({Cell::of("x"), Cell::of({.value = std::nan("")}, 2),
                 Cell::of({.value = 3, .kind = FigureKind::published, .source = "other"}, 0)});
  table.add_note("Dice: rule r");
  return table;
}

TEST_F(Report, TextSaysOfEveryNumberWhatItIs) {
  EXPECT_EQ(print(small_table(), TableFormat::text), R"text(Title

network           Dice (%)   published
--------   ---------------   ---------
a|b, "c"   81.26 ±0.50 n=3    87.2 [1]
größer              =42.90           -
x                undefined       3 [2]

Dice: rule r
x ±s n=k measured here, k values with spread s; =x computed from shapes; x [k] published in source k
[1] paper, table 1
[2] other
)text");
}

TEST_F(Report, MarkdownEscapes) {
  EXPECT_EQ(print(small_table(), TableFormat::markdown), R"text(**Title**

| network   |        Dice (%) | published |
|:----------|----------------:|----------:|
| a\|b, "c" | 81.26 ±0.50 n=3 |  87.2 [1] |
| größer    |          =42.90 |         - |
| x         |       undefined |     3 [2] |

- Dice: rule r
- x ±s n=k measured here, k values with spread s; =x computed from shapes; x [k] published in source k
- [1] paper, table 1
- [2] other
)text");
}

TEST_F(Report, CsvAndJsonCarryEverything) {
  EXPECT_EQ(print(small_table(), TableFormat::csv),
            "net,dice,dice.spread,dice.n,dice.unit,dice.kind,dice.source,"
            "p,p.spread,p.n,p.unit,p.kind,p.source\r\n"
            "\"a|b, \"\"c\"\"\",81.256,0.5,3,percent,measured,rule r,"
            "87.2,,1,,published,\"paper, table 1\"\r\n"
            "größer,42.9,,1,,computed,,,,,,,\r\n"
            "x,nan,,1,,measured,,3,,1,,published,other\r\n");
  const nlohmann::json json = nlohmann::json::parse(print(small_table(), TableFormat::json));
  EXPECT_EQ(json["rows"][0]["dice"]["value"], 81.256);
  EXPECT_EQ(json["rows"][0]["dice"]["n"], 3);
  EXPECT_EQ(json["rows"][1]["dice"]["kind"], "computed");
  EXPECT_EQ(json["rows"][2]["dice"]["value"], "nan");
  EXPECT_EQ(json["rows"][0]["p"]["source"], "paper, table 1");
}

const std::filesystem::path published_root = VOXLAB_SOURCE_DIR "/results/published";

TEST_F(Report, PublishedNumbersComeWithTheirSource) {
  const PublishedTable table = load_published(published_root, "unetr_pp/synapse_main");
  const auto params = table.find("UNETR++", "params_M");
  ASSERT_TRUE(params.has_value());
  EXPECT_EQ(params->value, 42.96);  // Synapse table of the paper
  EXPECT_EQ(params->kind, FigureKind::published);
  EXPECT_EQ(params->source,
            "UNETR++, synapse_main: Amshaker/unetr_plus_plus "
            "gh-pages:images/Synapse_quantitative_results.png "
            "(two-sources)");
  EXPECT_EQ(table.find("UNETR", "dice.Spl")->value, 85.0);
  EXPECT_FALSE(table.find("U-Net", "params_M").has_value());  // blank in the source
  EXPECT_EQ(error([&] { table.find("UNETR+", "params_M"); }).substr(0, 20),
            published_root.string().substr(0, 20));
  EXPECT_NE(error([&] {
              table.find("UNETR+", "params_M");
            }).find("unknown method 'UNETR+'; nearest known method 'UNETR"),
            std::string::npos);
  EXPECT_NE(error([&] {
              table.find("UNETR++", "parms_M");
            }).find("unknown key 'parms_M'; nearest known key 'params_M'"),
            std::string::npos);
  EXPECT_NE(error([&] {
              load_published(published_root, "unetr_pp/synapse_mian");
            }).find("unknown table 'synapse_mian'; nearest known table 'synapse_main'"),
            std::string::npos);
}

NodeKind value_kind(const ConfigNode& table, const std::string& method, const std::string& key) {
  for (const ConfigNode& row : table.find("row")->items)
    if (row.find("method") && row.find("method")->text == method)
      if (const ConfigNode* value = row.find_path(key)) return value->kind;
  return NodeKind::table;
}

// Every published file is whole: each table has an id of its own and a source for its numbers.
TEST_F(Report, EveryPublishedFileReads) {
  int tables = 0;
  for (const auto& entry : std::filesystem::directory_iterator(published_root)) {
    if (entry.path().extension() != ".toml") continue;
    const ConfigNode file = load_config(entry.path());
    for (const ConfigNode& node : file.find("table")->items) {
      const std::string name = entry.path().stem().string() + "/" + node.find("id")->text;
      const PublishedTable table = load_published(published_root, name);
      const ConfigNode* columns = node.find("metric_columns");
      for (const std::string& method : table.methods()) {
        for (const ConfigNode& column : columns ? columns->items : std::vector<ConfigNode>{}) {
          const NodeKind kind = value_kind(node, method, column.text);
          if (kind != NodeKind::real && kind != NodeKind::integer) continue;
          EXPECT_FALSE(table.find(method, column.text)->source.empty()) << name;
        }
      }
      ++tables;
    }
  }
  EXPECT_GE(tables, 50);
}

TEST_F(Report, SeveralRunsBecomeMeanAndSampleDeviation) {
  const std::vector<Figure> runs = {{.value = 1, .source = "r", .n = 6},
                                    {.value = 2, .source = "r", .n = 6},
                                    {.value = 6, .source = "r", .n = 6}};
  const Figure all = over_runs(runs);
  EXPECT_DOUBLE_EQ(all.value, 3);
  EXPECT_DOUBLE_EQ(*all.spread, std::sqrt(7.0));  // (4 + 1 + 9) / 2
  EXPECT_EQ(all.n, 3);
  EXPECT_EQ(all.source, "r; mean ± standard deviation over n runs");
  const std::vector<Figure> computed(2,
                                     {.value = 5, .kind = FigureKind::computed, .source = "meta"});
  EXPECT_EQ(over_runs(computed).source, "meta");
  EXPECT_FALSE(over_runs(computed).spread.has_value());
}

struct Tiny {
  int64_t seed = 0;
  std::string net = "a";
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("seed", s.seed);
    v("net", s.net);
  }
};

TEST_F(Report, ASuiteTableStandsBesidePublishedNumbers) {
  write("published/p.toml",
        "[paper]\nname = \"P\"\n[[table]]\nid = \"t\"\nsource = \"S\"\nmetric_columns = "
        "[\"dice_mean\"]\n"
        "[[table.row]]\nmethod = \"A\"\ndice_mean = 87.2\n[[table.row]]\nmethod = \"B\"\n");
  const Suite suite = load_suite(
      write("s.toml",
            "[axes]\nnet = [\"a\", \"b\", \"c\"]\nseed = [0, 1]\n[labels]\n\"net.a\" = \"net A\"\n"
            "[table]\ntitle = \"T\"\ncolumns = [\"params\", \"dice\"]\n"
            "[table.published]\ntable = \"p/t\"\nrows = { a = \"A\", b = \"B\" }\ncolumns = { "
            "params = \"\" }\n"));
  const auto cells = expand(suite, resolve<Tiny>);
  const auto runs = folder_ / "runs";
  const auto finish = [&](size_t i, double dice) {
    RunFolder folder(runs, cells[i].id);
    folder.begin(cells[i].config, cells[i].seed, cells[i].label());
    folder.finish({{"dice", {.value = dice, .source = "strict-mm, 6 cases"}},
                   {"params", {.value = 1234567, .kind = FigureKind::computed, .source = "meta"}}});
  };
  finish(0, 0.80);
  finish(1, 0.90);
  finish(2, 0.70);
  RunFolder failed(runs, cells[3].id);
  failed.begin(cells[3].config, 1, "");
  failed.fail("out of memory");
  const Table table = suite_table(suite, cells, {.runs = runs, .published = folder_ / "published"});
  EXPECT_EQ(print(table, TableFormat::text), R"text(T

net              runs   parameters (M)          Dice (%)   published
-----   -------------   --------------   ---------------   ---------
net A             2/2            =1.23   85.00 ±7.07 n=2    87.2 [1]
b       1/2, 1 failed            =1.23             70.00   not found
c                 0/2                -                 -           -

Dice (%): strict-mm, 6 cases
Dice (%): strict-mm, 6 cases; mean ± standard deviation over n runs
parameters (M): meta
x ±s n=k measured here, k values with spread s; =x computed from shapes; x [k] published in source k
[1] P, t: S
)text");
  Suite wrong = suite;
  wrong.table.columns = {"dcie"};
  EXPECT_EQ(error([&] {
              suite_table(wrong, cells, {runs, folder_ / "published"});
            }),
            "s.toml: table.columns: unknown column 'dcie'; nearest known column 'dice'");
  wrong = suite;
  wrong.table.published.rows["d"] = "A";
  EXPECT_NE(error([&] {
              suite_table(wrong, cells, {runs, folder_ / "published"});
            }).find("table.published.rows: unknown row 'd'"),
            std::string::npos);
}

// Steps of one second with two samples each; every step takes exactly as long, so the averages are
// exact.
std::string progress_text(ProgressMode mode, int64_t first, int64_t last, double seconds = 1) {
  std::ostringstream out;
  double time = 100;
  {
    Progress progress("fold 0", 4, first,
                      {.mode = mode, .out = &out, .now = [&] { return time; }, .columns = 60});
    for (int64_t step = first + 1; step <= last; ++step) {
      time += seconds;
      progress.step({.step = step,
                     .loss = 0.5,
                     .dice = step == 4 ? std::optional(0.75) : std::nullopt,
                     .samples = 2});
    }
  }
  return out.str();
}

TEST_F(Report, ProgressIsOneLiveLineOnATerminal) {
  EXPECT_EQ(progress_text(ProgressMode::live, 2, 4),
            "\r\x1b[Kfold 0  3/4  loss 0.5000  2 samples/s  ETA 0:01"
            "\r\x1b[Kfold 0  4/4  loss 0.5000  dice 0.7500  2 samples/s  took 0:\n");
}

TEST_F(Report, ProgressIsPlainLinesElsewhereEveryTenSecondsAndAtTheEnd) {
  EXPECT_EQ(progress_text(ProgressMode::lines, 0, 4),
            "fold 0  1/4  loss 0.5000  2 samples/s  ETA 0:03\n"
            "fold 0  4/4  loss 0.5000  dice 0.7500  2 samples/s  took 0:04\n");
  EXPECT_EQ(progress_text(ProgressMode::quiet, 0, 4), "");
}

TEST_F(Report, ProgressAsJsonHasALineAStep) {
  std::istringstream lines(progress_text(ProgressMode::json, 0, 4, 2));
  std::vector<nlohmann::json> steps;
  for (std::string line; std::getline(lines, line);) steps.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(steps.size(), 4u);
  EXPECT_EQ(steps[1]["step"], 2);
  EXPECT_EQ(steps[1]["eta"], 4.0);
  EXPECT_EQ(steps[1]["samples_per_second"], 1.0);
  EXPECT_EQ(steps[3]["dice"], 0.75);
}

TEST_F(Report, Durations) {
  EXPECT_EQ(duration_text(7.4), "0:07");
  EXPECT_EQ(duration_text(760), "12:40");
  EXPECT_EQ(duration_text(3 * 3600 + 5 * 60), "3:05:00");
  EXPECT_EQ(duration_text(std::nan("")), "?");
}

// The file as libpng's own reader sees it.
Image read_png(const std::filesystem::path& path) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  EXPECT_TRUE(png_image_begin_read_from_file(&png, path.c_str())) << png.message;
  png.format = PNG_FORMAT_RGB;
  Image image(png.width, png.height);
  EXPECT_TRUE(png_image_finish_read(&png, nullptr, image.pixels.data(), 0, nullptr));
  return image;
}

TEST_F(Report, PngFilesHaveThePixelsOfTheImage) {
  Image image(3, 2, {9, 8, 7});
  image.at(2, 1) = {255, 0, 128};
  write_png(folder_ / "a.png", image);
  const Image back = read_png(folder_ / "a.png");
  EXPECT_EQ(back.width, 3);
  EXPECT_EQ(back.height, 2);
  EXPECT_EQ(back.pixels, image.pixels);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}),
            1);  // no temporary file
}

TEST_F(Report, PanelsShowImageTruthAndPrediction) {
  // 256 columns: no enlargement. Values 0 and 1 in halves, so that the percentiles are 0 and 1.
  constexpr int64_t width = 256, height = 2;
  std::vector<float> values(width * height);
  std::vector<int64_t> truth(width * height, 0), prediction(width * height, 0);
  for (size_t i = 0; i < values.size(); ++i) values[i] = i % 2 ? 1.0f : 0.0f;
  truth[0] = 1;
  prediction[1] = 3;
  const Image panels = slice_panels({width, height, values, truth, prediction});
  EXPECT_EQ(panels.width, 3 * width + 2 * 8);
  EXPECT_EQ(panels.height, height + 16 + 8);
  EXPECT_EQ(panels.at(0, 0), (Rgb{0, 0, 0}));
  EXPECT_EQ(panels.at(1, 0), (Rgb{255, 255, 255}));
  EXPECT_EQ(panels.at(256 + 8, 0), (Rgb{115, 80, 0}));  // half of label 1's 230, 159, 0
  EXPECT_EQ(panels.at(256 + 8 + 1, 0), (Rgb{255, 255, 255}));
  EXPECT_EQ(panels.at(2 * 264 + 1, 0), (Rgb{128, 207, 185}));  // white with label 3's 0, 158, 115
  EXPECT_EQ(panels.at(256 + 3, 0), (Rgb{255, 255, 255}));      // the gap
  EXPECT_EQ(panels.at(0, height + 8), label_colour(1));
  EXPECT_EQ(panels.at(24, height + 8), label_colour(3));
  EXPECT_EQ(slice_panels({16, 8, std::span(values).first(128), {}, {}}).width, 256);
  EXPECT_EQ(error([&] {
              slice_panels({16, 8, values, {}, {}});
            }),
            "slice_panels: a 16x8 slice has 512 values, 0 true labels and 0 predicted ones");
}

}  // namespace
}  // namespace voxlab
