#include "experiments/run/experiment.h"

#include "experiments/config/bind.h"
#include "experiments/metrics/rule.h"
#include "experiments/run/demo_data.h"
#include "experiments/run/regions.h"
#include "runtime/core/error.h"
#include "runtime/runtime.h"

namespace voxlab {
namespace {

void expect(bool fine, const std::string& message) {
  if (!fine) fail("config", message);
}

// The file's table laid over the presets that its variant and its train.loss.preset name.
ConfigNode over_preset(const ConfigNode& node) {
  const ExperimentConfig defaults;
  const auto text_of = [&](std::string_view key, const std::string& otherwise) {
    const ConfigNode* found = node.find(key);
    return found && found->kind == NodeKind::text ? found->text : otherwise;
  };
  const std::string net = text_of("net", defaults.net.net);
  ConfigNode base;
  try {
    base = to_node(
        net_preset(net, text_of("variant", net == defaults.net.net ? defaults.net.variant : "")));
  } catch (const Error& error) {
    const ConfigNode* at = node.find("variant") ? node.find("variant") : node.find("net");
    fail((at ? at : &node)->at.to_string(), error.what());
  }
  const ConfigNode* loss = node.find_path("train.loss.preset");
  if (loss && loss->kind == NodeKind::text) {
    const auto preset = parse_enum<train::LossPreset>(loss->text, loss->at.to_string());
    set_path(base, "train.loss", to_node(train::LossConfig::named(preset)), loss->at);
  }
  merge(base, node);
  base.at = node.at;
  return base;
}

}  // namespace

void validate(const ExperimentConfig& c) {
  expect(c.seed >= 0, "seed must not be negative");
  expect(!c.data.source.empty(),
         "data.source is needed: a dataset folder, \"colin27\" or \"phantom\"");
  expect(c.train.steps >= 1, "train.steps must be at least 1");
  expect(c.train.batch >= 1, "train.batch must be at least 1");
  expect(c.train.minutes >= 0, "train.minutes must not be negative");
  expect(c.train.foreground >= 0 && c.train.foreground <= 1, "train.foreground must lie in [0, 1]");
  expect(
      c.train.checkpoint_every >= 0 && c.train.validation_cases >= 0 && c.train.validate_every >= 0,
      "train.checkpoint_every, validation_cases and validate_every must not be negative");
  expect(c.train.validate_every == 0 || c.train.validation_cases > 0,
         "train.validate_every needs train.validation_cases");
  if (c.train.loss.output == train::LossOutput::regions) {
    expect(!c.train.loss.regions.empty(),
           "train.loss.output = \"regions\" needs train.loss.regions, the classes of each");
    region_classes(c.train.loss.regions);
  } else {
    expect(c.train.loss.regions.empty(),
           "train.loss.regions needs train.loss.output = \"regions\"");
  }
  expect(c.test.step > 0 && c.test.step <= 1, "test.step must lie in (0, 1]");
  expect(c.test.checkpoint == "last" || c.test.checkpoint == "best",
         "test.checkpoint must be \"last\" or \"best\"");
  expect(c.test.checkpoint == "last" || c.train.validate_every > 0,
         "test.checkpoint = \"best\" needs train.validate_every");
  metric_rule(c.test.rule);
  validate(c.train.augment);
  train::ScheduleConfig schedule = c.train.schedule;
  if (schedule.total == 0) schedule.total = c.train.steps;
  train::learning_rate(schedule, c.train.optimizer.lr, 0);
}

ConfigNode resolve_experiment(const ConfigNode& node) {
  auto config = read_config<ExperimentConfig>(over_preset(node));
  const auto at = [&](std::string_view key) {
    const ConfigNode* table = node.find(key);
    return (table ? table : &node)->at.to_string();
  };
  try {
    validate(config.net);
  } catch (const Error& error) {
    fail(at(config.net.net), error.what());
  }
  try {
    validate(config);
  } catch (const Error& error) {
    fail(at(""), error.what());
  }
  if (config.data.source == "colin27" && !has_colin27()) config.data.source = "phantom";
  // The id says what the numbers depend on, so it holds the word, not "auto". Whether this machine has what an
  // explicit word needs is asked when the run starts: a table reads runs of other machines.
  if (config.train.precision == Arithmetic::automatic) config.train.precision = resolve(Arithmetic::automatic);
  return to_node(config);
}

Arithmetic inference_arithmetic(const ExperimentConfig& config) {
  return config.train.precision == Arithmetic::bf16 ? Arithmetic::strict : config.train.precision;
}

}  // namespace voxlab
