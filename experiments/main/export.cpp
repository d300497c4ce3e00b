// `voxlab export`.
#include "experiments/export/export.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "experiments/main/net_options.h"
#include "experiments/main/options.h"
#include "experiments/run/machine.h"
#include "experiments/run/predict.h"
#include "runtime/io/safetensors.h"

namespace voxlab {
namespace {

struct Source {
  NetConfig config;
  Network network;
  std::string weights;  // where they come from, in words
};

// The folder's own name, whatever way it was given: the file tells nothing of this machine's paths.
std::string run_name(const std::filesystem::path& run) {
  const std::filesystem::path whole = std::filesystem::absolute(run).lexically_normal();
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
}

Source open_source(const ExportOptions& o) {
  const bool by_name = !o.net.net.empty() || !o.net.config.empty() || !o.net.variant.empty();
  if (!o.run.empty()) {
    if (by_name || !o.weights.empty() || !o.net.set.empty())
      fail("export",
           "a run names its network and weights itself: leave --net, --variant, --config, --set, "
           "--weights out");
    TrainedModel model = load_model(o.run, o.checkpoint);
    return {model.config.net, std::move(model.network),
            "run " + run_name(o.run) + ", " + o.checkpoint};
  }
  if (!by_name) fail("export", "expected a run's folder, or a network by --net");
  Source source{.config = resolve_net(o.net)};
  source.network = make_network(source.config, {});
  source.weights = "none: initialised with seed 0";
  if (!o.weights.empty()) {
    load_weights(source.config, source.network, o.weights);
    source.weights = o.weights.filename().string();
  }
  return source;
}

}  // namespace

void add_export(CLI::App& app, int& code) {
  auto options = std::make_shared<ExportOptions>();
  CLI::App* command =
      app.add_subcommand("export", "Write a network as an ONNX file that other programs run");
  command->footer(
      "The file holds one inference pass at the network's own input size, batch 1, f32: input "
      "\"image\"\n"
      "(1, channels, spatial...), output \"logits\" (1, classes, spatial...). Preprocessing, "
      "sliding\n"
      "window and softmax are not part of it.");
  command->add_option("run", options->run, "Folder of a trained run")
      ->check(CLI::ExistingDirectory);
  command->add_option("--checkpoint", options->checkpoint, "Which checkpoint of the run")
      ->check(CLI::IsMember({"last", "best"}))
      ->capture_default_str();
  add_net(*command, options->net, "--net");
  command
      ->add_option("--weights", options->weights,
                   "A .safetensors file of `voxlab import`, for --net")
      ->check(CLI::ExistingFile);
  command->add_option("--onnx", options->onnx, "The .onnx file to write")->required();
  command->add_option(
      "--check", options->check,
      "Also write a .safetensors file with an input \"image\" and our \"logits\" for it");
  add_common(*command, options->common);
  command->callback([options, &code] {
    options->common.apply();
    code = command_export(*options);
  });
}

int command_export(const ExportOptions& o) {
  const Source source = open_source(o);
  ExportedNetwork exported =
      export_network(source.network, source.config.net + " " + source.config.variant);
  OnnxModel& model = exported.model;
  model.producer_version = build_revision();
  model.metadata = {
      {"net", source.config.net}, {"variant", source.config.variant}, {"weights", source.weights}};
  const uint64_t bytes = write_onnx(o.onnx, model);
  if (!o.check.empty()) {
    NamedTensors pair;
    pair.add("image", exported.x);
    pair.add("logits", exported.y);
    write_safetensors(o.check, pair);
  }
  std::map<std::string, int64_t> types;
  for (const OnnxNode& node : model.nodes) ++types[node.type];
  if (o.common.json) {
    std::cout << nlohmann::json{{"onnx", o.onnx.string()},
                                {"bytes", bytes},
                                {"opset", OnnxModel::opset},
                                {"nodes", types},
                                {"weights", source.weights}}
                     .dump(2)
              << '\n';
    return exit_done;
  }
  std::string counts;
  for (const auto& [type, count] : types)
    counts += fmt::format("{}{} {}", counts.empty() ? "" : ", ", count, type);
  std::cout << fmt::format(
      "{} {}: {} ({:.1f} MB, opset {})\n  weights  {}\n  image    {}\n  logits   {}\n  nodes    "
      "{}\n",
      source.config.net, source.config.variant, o.onnx.string(), static_cast<double>(bytes) * 1e-6,
      OnnxModel::opset, source.weights, exported.x.shape().to_string(),
      exported.y.shape().to_string(), counts);
  return exit_done;
}

}  // namespace voxlab
