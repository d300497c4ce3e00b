#include "experiments/golden/counted.h"

#include <array>
#include <nlohmann/json.hpp>

#include "experiments/golden/subject.h"

namespace voxlab {
namespace {

using nlohmann::json;

constexpr std::array tools_on_cpu{
    CountedTool{"fvcore", "fvcore"},
    CountedTool{"fvcore_train_mode", "fvcore", CountMode::training_forward},
    CountedTool{"ptflops_old", "ptflops-0.6"},
    CountedTool{"ptflops_pytorch", "ptflops-0.7"},
    CountedTool{"ptflops_aten", "ptflops-aten"},
    CountedTool{"thop", "thop"},
    CountedTool{"torch_flop_counter", "torch"},
    CountedTool{"torchprofile", "torchprofile"},
    CountedTool{"closed_form", "mac"},
};

// The records of the BraTS network were made on PyTorch's meta device, which changes one tool's figures.
constexpr auto tools_on_meta = [] {
  auto tools = tools_on_cpu;
  for (CountedTool& tool : tools)
    if (tool.rule == "ptflops-0.7") tool.rule = "ptflops-0.7-meta";
  return tools;
}();

std::optional<NetConfig> config_of(const std::string& net, const std::string& name) {
  constexpr std::pair<std::string_view, std::optional<NetConfig> (*)(const std::string&)> networks[] = {
      {"unetr_pp", counted_unetr_pp},     {"ux_net", counted_ux_net},         {"levit_unet", counted_levit_unet},
      {"brats_unet", counted_brats_unet}, {"dae_former", counted_dae_former},
  };
  for (const auto& [known, config] : networks)
    if (known == net) return config(name);
  return std::nullopt;
}

// The input as the record has it, (N, C, spatial...).
void set_input(NetConfig& config, const json& input) {
  NetConfig::with_config(config, [&](std::string_view, auto& c) {
    c.in_channels = input.at(1);
    c.image = std::vector<int64_t>(input.begin() + 2, input.end());
  });
}

}  // namespace

std::span<const CountedTool> counted_tools(std::string_view net) {
  return net == "brats_unet" ? tools_on_meta : tools_on_cpu;
}

const CountedTool* find_counted_tool(std::string_view net, std::string_view key) {
  for (const CountedTool& tool : counted_tools(net))
    if (tool.key == key) return &tool;
  return nullptr;
}

std::vector<CountedCase> counted_cases(const std::filesystem::path& file, const json& record) {
  const std::string net = record.value("net", file.parent_path().filename().string());
  std::vector<CountedCase> cases;
  for (const auto& [name, c] : record.contains("cases") ? record.at("cases").items() : record.items()) {
    if (!c.is_object() || !c.contains("by_tool")) continue;
    CountedCase one{.net = net, .name = name, .config = config_of(net, name), .record = &c};
    if (one.config && c.contains("input")) set_input(*one.config, c.at("input"));
    cases.push_back(std::move(one));
  }
  return cases;
}

}  // namespace voxlab
