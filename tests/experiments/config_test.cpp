// Strict TOML into structs: values, error texts with their places, dumps, ids, extends, overrides.
#include <nlohmann/json.hpp>

#include "experiments/config/bind.h"
#include "experiments/config/emit.h"
#include "experiments/config/parse.h"
#include "experiments/config/sha256.h"
#include "tests/experiments/temporary_folder.h"

namespace voxlab {
namespace {

enum class Attention : uint8_t { none, encoder, decoder, both };
constexpr auto enum_names(Attention) {
  return std::array{std::pair{std::string_view("none"), Attention::none},
                    std::pair{std::string_view("encoder"), Attention::encoder},
                    std::pair{std::string_view("decoder"), Attention::decoder},
                    std::pair{std::string_view("both"), Attention::both}};
}

struct Layer {
  int64_t width = 8;
  bool bias = true;
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("width", s.width);
    v("bias", s.bias);
  }
};

struct Net {
  Attention attention = Attention::both;
  std::array<int64_t, 3> patch = {64, 128, 128};
  std::vector<Layer> layers;
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("attention", s.attention);
    v("patch", s.patch);
    v("layers", s.layers);
  }
};

struct Food {
  std::string food = "bread";
  double rate = 0.1;
  int threads = 2;
  DType precision = DType::f32;
  std::optional<int64_t> limit;
  std::map<std::string, std::string> names;
  std::vector<double> weights = {1, 0.5};
  Net net;
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("food", s.food);
    v("rate", s.rate);
    v("threads", s.threads);
    v("precision", s.precision);
    v("limit", s.limit);
    v("names", s.names);
    v("weights", s.weights);
    v("net", s.net);
  }
};

Food parse(std::string_view text) { return read_config<Food>(parse_config(text, "a.toml")); }

std::string error_of(std::string_view text) {
  try {
    parse(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Config, ReadsEveryKindOfField) {
  const Food food = parse(R"(
food = "rice"
rate = 3            # an integer is a real
threads = -7
precision = "bf16"
limit = 9223372036854775807
names = { a = "x", "b c" = "y" }
weights = [2, 0.25, 1e-3]
[net]
attention = "decoder"
patch = [1, 2, 3]
[[net.layers]]
width = 16
[[net.layers]]
bias = false
)");
  EXPECT_EQ(food.food, "rice");
  EXPECT_EQ(food.rate, 3.0);
  EXPECT_EQ(food.threads, -7);
  EXPECT_EQ(food.precision, DType::bf16);
  EXPECT_EQ(food.limit, std::numeric_limits<int64_t>::max());
  EXPECT_EQ(food.names, (std::map<std::string, std::string>{{"a", "x"}, {"b c", "y"}}));
  EXPECT_EQ(food.weights, (std::vector<double>{2, 0.25, 1e-3}));
  EXPECT_EQ(food.net.attention, Attention::decoder);
  EXPECT_EQ(food.net.patch, (std::array<int64_t, 3>{1, 2, 3}));
  ASSERT_EQ(food.net.layers.size(), 2u);
  EXPECT_EQ(food.net.layers[0].width, 16);
  EXPECT_TRUE(food.net.layers[0].bias);
  EXPECT_FALSE(food.net.layers[1].bias);
}

TEST(Config, WhatIsAbsentKeepsItsDefault) {
  const Food food = parse("");
  EXPECT_EQ(food.food, "bread");
  EXPECT_FALSE(food.limit.has_value());
  EXPECT_EQ(food.net.attention, Attention::both);
}

TEST(Config, UnknownKeysNameThePlaceAndTheNearestKey) {
  EXPECT_EQ(error_of("foo = 1"), "a.toml:1:1: unknown key 'foo'; nearest known key 'food'");
  EXPECT_EQ(error_of("rate = 1\n\n[net]\n  atention = \"none\"\n"),
            "a.toml:4:3: unknown key 'net.atention'; nearest known key 'net.attention'");
  EXPECT_EQ(error_of("[net]\npatch = [1, 2, 3]\n[[net.layers]]\nwdith = 3\n"),
            "a.toml:4:1: unknown key 'net.layers[0].wdith'; nearest known key "
            "'net.layers[0].width'");
  EXPECT_EQ(error_of("[net.layers2]\nx = 1\n"),
            "a.toml:1:6: unknown key 'net.layers2'; nearest known key 'net.layers'");
  // Nothing is near: every key is listed.
  EXPECT_EQ(error_of("[[net.layers]]\nzzzzzzzz = 1"),
            "a.toml:2:1: unknown key 'net.layers[0].zzzzzzzz'; known: width, bias");
}

TEST(Config, WrongTypesSayWhatWasExpected) {
  EXPECT_EQ(error_of("food = 1"), "a.toml:1:8: food: expected a text, got the integer 1");
  EXPECT_EQ(error_of("rate = \"fast\""),
            "a.toml:1:8: rate: expected a real number, got the text 'fast'");
  EXPECT_EQ(error_of("threads = 1.5"),
            "a.toml:1:11: threads: expected an integer, got the real number 1.5");
  EXPECT_EQ(error_of("threads = 3000000000"),
            "a.toml:1:11: threads: 3000000000 is outside the range -2147483648 to 2147483647");
  EXPECT_EQ(error_of("net = 3"), "a.toml:1:7: net: expected a table, got the integer 3");
  EXPECT_EQ(error_of("weights = 3"), "a.toml:1:11: weights: expected an array, got the integer 3");
  EXPECT_EQ(error_of("weights = [1,\n  true]"),
            "a.toml:2:3: weights[1]: expected a real number, got true");
  EXPECT_EQ(error_of("[net]\npatch = [1, 2]"), "a.toml:2:9: net.patch: expected 3 values, got 2");
  EXPECT_EQ(error_of("[net]\nattention = \"encodr\""),
            "a.toml:2:13: net.attention: 'encodr' is none of none, encoder, decoder, both; "
            "nearest 'encoder'");
  EXPECT_EQ(error_of("precision = \"f33\""),
            "a.toml:1:13: precision: 'f33' is none of f64, f32, bf16, f16, i64, i32, u8, " +
                std::string(name(DType::boolean)) + "; nearest 'f32'");
  EXPECT_EQ(error_of("food = 1979-05-27"),
            "a.toml:1:8: dates and times are not used here; quote the value");
}

TEST(Config, SyntaxErrorsHaveAPlaceToo) {
  EXPECT_EQ(error_of("rate = 1\nrate = 2\n").rfind("a.toml:2:", 0), 0u)
      << error_of("rate = 1\nrate = 2\n");
  EXPECT_EQ(error_of("rate = \n").rfind("a.toml:1:", 0), 0u);
  EXPECT_EQ(error_of("food = \"\xff\"").rfind("a.toml:1:", 0), 0u);
  EXPECT_EQ(error_of(std::string(100000, '[')), "a.toml: the text is not TOML");
  EXPECT_EQ(error_of("weights = " + std::string(100000, '[')).rfind("a.toml:1:", 0), 0u);
}

TEST(Config, TheDumpEchoesAllDefaultsAndReadsBackTheSame) {
  Food food;
  food.rate = 0.1;
  food.weights = {1e300, std::numeric_limits<double>::infinity(), -0.0, 1};
  food.names["quote \" and\n"] = "back\\slash\x01";
  food.net.layers = {{.width = 4, .bias = false}, {}};
  const std::string text = to_toml(to_node(food));
  EXPECT_EQ(text, R"(food = "bread"
rate = 0.1
threads = 2
precision = "f32"
weights = [1e+300, inf, -0.0, 1.0]

[names]
"quote \" and\n" = "back\\slash\u0001"

[net]
attention = "both"
patch = [64, 128, 128]

[[net.layers]]
width = 4
bias = false

[[net.layers]]
width = 8
bias = true
)");
  EXPECT_EQ(to_toml(resolve<Food>(parse_config(text, "dump"))), text);
  const nlohmann::json json = to_json(to_node(food));
  EXPECT_EQ(json["net"]["layers"][0]["width"], 4);
  EXPECT_EQ(json["weights"][1], "inf");
  EXPECT_FALSE(json.contains("limit"));
}

TEST(Config, TheIdDependsOnValuesOnly) {
  const auto id = [](std::string_view text) {
    return content_id(resolve<Food>(parse_config(text, "x")));
  };
  EXPECT_EQ(id("").size(), 16u);
  EXPECT_EQ(id(""), id("# a comment\nrate = 0.1\n"));
  EXPECT_EQ(id("rate = 1"), id("rate = 1.0"));
  EXPECT_EQ(id("[net]\npatch = [1, 2, 3]\nattention = \"none\""),
            id("net = { attention = \"none\", patch = [1, 2, 3] }"));
  EXPECT_NE(id(""), id("rate = 0.10000000000000002"));
}

// FIPS 180-4 examples, and the million of letters.
TEST(Config, Sha256KnownAnswers) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  Sha256 hash;
  for (int i = 0; i < 1000; ++i) hash.update(std::string(1000, 'a'));
  EXPECT_EQ(hash.hex(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

class ConfigFiles : public TemporaryFolder {
 protected:
  std::string error_in(const std::filesystem::path& path) {
    return error([&] { read_config<Food>(load_config(path)); });
  }
};

TEST_F(ConfigFiles, ExtendsLaysOneFileOverAnother) {
  write("base/root.toml", "food = \"root\"\nrate = 0.5\n[net]\npatch = [1, 1, 1]\n");
  write("base/middle.toml", "extends = \"root.toml\"\nfood = \"middle\"\n");
  const auto top = write(
      "top.toml", "extends = \"base/middle.toml\"\nweights = [7]\n[net]\nattention = \"none\"\n");
  const Food food = read_config<Food>(load_config(top));
  EXPECT_EQ(food.food, "middle");
  EXPECT_EQ(food.rate, 0.5);
  EXPECT_EQ(food.weights, std::vector<double>{7});
  EXPECT_EQ(food.net.patch[0], 1);
  EXPECT_EQ(food.net.attention, Attention::none);
}

TEST_F(ConfigFiles, AnErrorNamesTheFileThatHoldsIt) {
  write("base/root.toml", "\nfood = 3\n");
  EXPECT_EQ(error_in(write("top.toml", "extends = \"base/root.toml\"\nrate = 1\n")),
            "base/root.toml:2:8: food: expected a text, got the integer 3");
}

TEST_F(ConfigFiles, ExtendsRefusesCyclesAndMissingFiles) {
  write("a.toml", "extends = \"b.toml\"\n");
  const auto b = write("b.toml", "rate = 1\nextends = \"a.toml\"\n");
  EXPECT_EQ(error_in(b), "a.toml:1:11: extends: 'b.toml' extends itself");
  EXPECT_EQ(error_in(write("c.toml", "rate = 1\nextends = \"no.toml\"\n")),
            "c.toml:2:11: extends: there is no file 'no.toml'");
  EXPECT_EQ(error_in(write("d.toml", "extends = 3\n")),
            "d.toml:1:11: extends: expected the name of a file, got an integer");
}

TEST(Config, OverridesComeFromTheCommandLine) {
  ConfigNode node = parse_config("rate = 1\n[net]\nattention = \"none\"\n", "a.toml");
  apply_override(node, "net.attention=encoder");
  apply_override(node, "net.patch=[4, 5, 6]");
  apply_override(node, "rate=2.5");
  apply_override(node, "food=a/b.c");
  const Food food = read_config<Food>(node);
  EXPECT_EQ(food.net.attention, Attention::encoder);
  EXPECT_EQ(food.net.patch[2], 6);
  EXPECT_EQ(food.rate, 2.5);
  EXPECT_EQ(food.food, "a/b.c");
  const auto error = [](std::string_view text) {
    try {
      ConfigNode n = parse_config("rate = 1", "a.toml");
      apply_override(n, text);
      read_config<Food>(n);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(error("net.patsch=3"),
            "--set net.patsch=3: unknown key 'net.patsch'; nearest known key 'net.patch'");
  EXPECT_EQ(error("rate"), "--set rate: expected KEY=VALUE, for instance train.steps=100");
  EXPECT_EQ(error("rate.x=1"),
            "--set rate.x=1: 'rate.x' leads through 'rate', which is an integer and has no keys");
  EXPECT_EQ(error("net..x=1"),
            "--set net..x=1: 'net..x' is not a path of keys such as 'train.rate'");
}

}  // namespace
}  // namespace voxlab
