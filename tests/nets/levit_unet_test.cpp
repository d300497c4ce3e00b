// LeViT-UNet: folding, ablations, and what a configuration refuses.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "experiments/golden/subject.h"
#include "experiments/run/import.h"
#include "nets/levit_unet/net.h"
#include "runtime/core/error.h"
#include "runtime/io/safetensors.h"
#include "tests/support/temporary_folder.h"

namespace voxlab {
namespace {

using nlohmann::json;

json read(const std::string& name) {
  std::ifstream in(VOXLAB_TEST_DATA "/goldens/levit_unet/" + name + ".json");
  return json::parse(in);
}

Tensor input_of(const json& record, const GoldenOptions& options) {
  return golden_input(record.at("input").at("name"), record.at("input").at("shape"), options);
}

// The record's network with the record's parameters.
Subject filled(const json& record, const GoldenOptions& options) {
  Subject subject = build_subject(record, options);
  GoldenReport report;
  fill_parameters(report, subject, record.at("manifest"), options);
  EXPECT_TRUE(report.rows.empty());
  return subject;
}

Subject folded(const json& record, const GoldenOptions& options) {
  json config = record;
  config["config"]["folded"] = true;
  Subject to = build_subject(config, options);
  levit_unet::fold(filled(record, options).parameters, to.parameters);
  return to;
}

double value_error(const Subject& subject, const char* name, const json& record) {
  const nn::ParameterPtr p = subject.parameters.find(name);
  return p ? tensor_error(nn::to_source(*p, p->value).to_vector(), record) : std::nan("");
}

// The authors' own fold of a convolution and of a linear layer: the weights it gives, and the same output.
TEST(LevitUnetFold, ALayerFoldsAsReleased) {
  const GoldenOptions options{Device::ref, DType::f64};
  for (const char* name : {"block_conv_bn", "block_linear_bn"}) {
    const json record = read(name);
    const Subject to = folded(record, options);
    EXPECT_LE(value_error(to, "weight", record.at("fused").at("weight")), 1e-9) << name;
    EXPECT_LE(value_error(to, "bias", record.at("fused").at("bias")), 1e-9) << name;
    const Tensors y = to.forward(input_of(record, options), {});
    EXPECT_LE(tensor_error(to_channels_first(y[0]).to_vector(), record.at("eval").at("outputs")[0]), 1e-9) << name;
  }
}

// Whole networks: the folded one gives the unfolded one's recorded output, in f64 and in f32.
TEST(LevitUnetFold, ANetworkKeepsItsOutput) {
  for (const char* name : {"small_128s", "small_192", "small_384"}) {
    const json record = read(name);
    const double noise = record.at("float32_noise").at("eval").at("outputs");
    for (const auto& [options, limit] : {std::pair{GoldenOptions{Device::ref, DType::f64}, 1e-9},
                                         std::pair{GoldenOptions{Device::cpu, DType::f32}, 4 * noise}}) {
      const Subject to = folded(record, options);
      const Tensors y = to.forward(input_of(record, options), {});
      EXPECT_LE(tensor_error(to_channels_first(y[0]).to_vector(), record.at("eval").at("outputs")[0]), limit) << name;
      // The authors fold all but the decoder's norms; each of those has one number a channel more.
      int64_t decoder = 0;
      for (const json& width : record.at("config").at("decoder_widths")) decoder += 2 * width.get<int64_t>();
      EXPECT_EQ(to.parameters.count(), record.at("eval_fused").at("params").get<int64_t>() - decoder) << name;
    }
  }
}

TEST(LevitUnetFold, RefusesAnotherNetwork) {
  const json small = read("small_128s"), other = read("small_384");
  const Subject from = filled(small, {});
  json config = other;
  config["config"]["folded"] = true;
  Subject to = build_subject(config, {});
  EXPECT_THROW(levit_unet::fold(from.parameters, to.parameters), Error);
  Subject unfolded = build_subject(small, {});
  EXPECT_THROW(levit_unet::fold(from.parameters, unfolded.parameters), Error);
}

TEST(LevitUnetFold, AFoldedNetworkDoesNotTrain) {
  const GoldenOptions options;
  const json record = read("small_128s");
  EXPECT_THROW(folded(record, options).forward(input_of(record, options), {.training = true}), Error);
}

Network network(const levit_unet::Config& config) {
  NetConfig net = net_preset("levit_unet", "128s");
  net.levit_unet = config;
  return make_network(net, {.device = Device::meta});
}

// By hand, for 128s: without a skip its decoder's next convolution (3x3, 256, 128 or the head's 9 outputs)
// loses the stem's 64, 32 or 16 channels.
TEST(LevitUnetAblation, SkipsTakeTheirInputChannels) {
  levit_unet::Config c = levit_unet::preset("128s");
  EXPECT_EQ(network(c).parameters.count(), 15904715);  // the authors' own count
  const int64_t lost[] = {9 * 64 * 256, 9 * 32 * 128, 9 * 16 * 9};
  int64_t expected = 15904715;
  for (int64_t skips = 2; skips >= 0; --skips) {
    c.skips = skips;
    expected -= lost[skips];
    const Network net = network(c);
    EXPECT_EQ(net.parameters.count(), expected) << skips;
    const Tensor x = Tensor::empty({2, 224, 224, 1}, DType::f32, Device::meta);
    EXPECT_EQ(net.forward(x, {})[0].shape(), (Shape{2, 224, 224, 9}));
  }
}

// counts.json, params_by_part: 234016 + 1734802 + 4939024 in the transformer's three parts.
TEST(LevitUnetAblation, WithoutTheTransformerTheStemRemains) {
  levit_unet::Config c = levit_unet::preset("128s");
  c.transformer = false;
  EXPECT_EQ(network(c).parameters.count(), 15904715 - (234016 + 1734802 + 4939024) - 9 * (128 + 256 + 384) * 512);
}

// Rectangular images, which the released code cannot have, and the other way up of the coarse map.
TEST(LevitUnetOptions, ShapesFollowTheImage) {
  levit_unet::Config c = levit_unet::preset("192");
  c.image = {96, 160};
  c.in_channels = 3;
  c.coarse_upsampling = levit_unet::CoarseUpsampling::direct;
  c.decoder_norm = nn::NormKind::instance;
  const Tensor x = Tensor::empty({1, 96, 160, 3}, DType::f32, Device::meta);
  EXPECT_EQ(network(c).forward(x, {})[0].shape(), (Shape{1, 96, 160, 9}));
  EXPECT_THROW(network(c).forward(Tensor::empty({1, 160, 96, 3}, DType::f32, Device::meta), {}), Error);
}

void expect_refused(void (*change)(levit_unet::Config&), const std::string& message) {
  levit_unet::Config c = levit_unet::preset("384");
  change(c);
  try {
    levit_unet::validate(c);
    FAIL() << "accepted: " << message;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
  }
}

TEST(LevitUnetOptions, RefusesWhatDoesNotFit) {
  expect_refused([](auto& c) { c.image = {224, 240}; }, "not a multiple of 32");
  expect_refused([](auto& c) { c.image = {224}; }, "image needs 2 positive numbers");
  expect_refused([](auto& c) { c.stem[3] = 192; }, "must end with embed[0]");
  expect_refused([](auto& c) { c.skips = 4; }, "skips must be 0 to 3");
  expect_refused([](auto& c) { c.drop_path = 1; }, "drop_path");
  expect_refused([](auto& c) { c.decoder_norm = nn::NormKind::group; }, "no number of groups");
  expect_refused([](auto& c) { c.folded = true, c.decoder_norm = nn::NormKind::instance; }, "folded = true makes no");
  expect_refused([](auto& c) { c.transformer = false, c.coarse_upsampling = levit_unet::CoarseUpsampling::direct; },
                 "no coarse map");
}

TEST(LevitUnetOptions, StartsAsReleased) {
  Network net = make_network(net_preset("levit_unet", "128s"), {});
  const auto all_are = [&](const char* name, double value) {
    const nn::ParameterPtr p = net.parameters.find(name);
    ASSERT_TRUE(p) << name;
    for (double v : p->value.to_vector()) ASSERT_EQ(v, value) << name;
  };
  all_are("transformer.block0.attention.proj.norm.weight", 0);  // residual branches start as nothing
  all_are("transformer.block1.mlp.reduce.norm.weight", 0);
  all_are("transformer.block4.attention.proj.norm.weight", 1);  // the first down-sampler has no residual
  all_are("transformer.block1.mlp.expand.norm.weight", 1);
  all_are("transformer.block0.attention.attention_biases", 0);
}

// A source with the parameters of the network that `names` lists, official name to ours.
NamedTensors checkpoint(const Network& network, const std::map<std::string, std::string>& names) {
  NamedTensors source;
  for (const auto& [official, ours] : names) {
    const nn::ParameterPtr p = network.parameters.find(ours);
    if (p) source.add(official, nn::to_source(*p, p->value));
  }
  return source;
}

// LeViT's ImageNet names: stem and transformer load, the first convolution (three channels there) is skipped
// and named, classification heads and index tables are ignored, the decoder is missing.
TEST(LevitUnetImport, TakesImageNetWeights) {
  const auto make = [](uint64_t seed) {
    return make_network(net_preset("levit_unet", "128s"), {.seed = seed});
  };
  const Network donor = make(1);
  const std::map<std::string, std::string> names = {
      {"patch_embed.2.c.weight", "stem.conv2.weight"},
      {"patch_embed.6.bn.running_var", "stem.conv4.norm.running_var"},
      {"blocks.0.m.attention_biases", "transformer.block0.attention.attention_biases"},
      {"blocks.0.m.qkv.c.weight", "transformer.block0.attention.qkv.weight"},
      {"blocks.0.m.proj.1.bn.weight", "transformer.block0.attention.proj.norm.weight"},
      {"blocks.3.m.0.c.weight", "transformer.block3.mlp.expand.weight"},
      {"blocks.3.m.2.bn.bias", "transformer.block3.mlp.reduce.norm.bias"},
      {"blocks.4.kv.c.weight", "transformer.block4.attention.kv.weight"},
      {"blocks.4.q.1.c.weight", "transformer.block4.attention.q.weight"},
      {"blocks.21.m.2.c.weight", "transformer.block21.mlp.reduce.weight"},
  };
  NamedTensors source = checkpoint(donor, names);
  ASSERT_EQ(source.size(), names.size());
  source.add("patch_embed.0.c.weight", Tensor::zeros({16, 3, 3, 3}, DType::f32));
  for (const char* key : {"head.l.weight", "head_dist.bn.running_mean", "blocks.0.m.attention_bias_idxs",
                          "patch_embed.0.bn.num_batches_tracked"})
    source.add(key, Tensor::zeros({3}, DType::f32));

  Network network = make(2);
  EXPECT_THROW(import_tensors(network, source), Error);  // not partial: a wrong shape is an error
  network = make(2);
  const std::vector<double> first = network.parameters.find("stem.conv1.weight")->value.to_vector();
  const ImportReport report = import_tensors(network, source, true);
  EXPECT_EQ(report.loaded, 10);
  const std::string skipped = "patch_embed.0.c.weight: (16, 3, 3, 3), the network needs (16, 1, 3, 3)";
  EXPECT_EQ(report.skipped, std::vector<std::string>{skipped});
  EXPECT_EQ(report.ignored.size(), 4u);
  EXPECT_TRUE(report.unexpected.empty());
  EXPECT_EQ(report.missing.size(), network.parameters.all().size() - names.size());
  EXPECT_EQ(network.parameters.find("stem.conv1.weight")->value.to_vector(), first);
  for (const auto& [official, ours] : names)
    EXPECT_EQ(network.parameters.find(ours)->value.to_vector(), donor.parameters.find(ours)->value.to_vector()) << ours;

  const test::TemporaryFolder folder;
  write_safetensors(folder / "levit.safetensors", source);
  const ImportReport of_file = import_checkpoint(net_preset("levit_unet", "128s"), folder / "levit.safetensors",
                                                 folder / "ours.safetensors", true);
  EXPECT_EQ(of_file.skipped, report.skipped);
  EXPECT_EQ(read_tensors(folder / "ours.safetensors").at("stem.conv2.weight").to_vector(),
            donor.parameters.find("stem.conv2.weight")->value.to_vector());
}

// The released 192 saves each transformer tensor under two names; a second name with other values is refused.
TEST(LevitUnetImport, ASecondNameOfATensorIsAnAlias) {
  Network network = make_network(net_preset("levit_unet", "192"), {});
  NamedTensors source = checkpoint(network, {{"blocks.9.m.0.c.weight", "transformer.block9.mlp.expand.weight"},
                                             {"block_2.9.m.0.c.weight", "transformer.block9.mlp.expand.weight"}});
  source.add("block_3.9.m.0.c.weight", Tensor::zeros({576, 288}, DType::f32));
  const ImportReport report = import_tensors(network, source);
  EXPECT_EQ(report.loaded, 1);
  EXPECT_EQ(report.ignored.size(), 1u);
  EXPECT_EQ(report.unexpected, std::vector<std::string>{"block_3.9.m.0.c.weight"});
}

}  // namespace
}  // namespace voxlab
