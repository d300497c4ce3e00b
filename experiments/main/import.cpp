// `voxlab import`.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "experiments/main/net_options.h"
#include "experiments/main/options.h"
#include "experiments/run/import.h"

namespace voxlab {

void add_import(CLI::App& app, int& code) {
  auto options = std::make_shared<ImportOptions>();
  CLI::App* command = app.add_subcommand("import", "Turn an official checkpoint into safetensors");
  command->footer("Lists missing, unexpected and reshaped keys; exit code 1 when there are any missing or unexpected\n"
                  "ones. With --partial, what does not fit is skipped and listed, and missing is allowed.\n"
                  "No code of the checkpoint is run.");
  add_net(*command, options->net, "--net");
  command->add_option("input", options->input, "Checkpoint of PyTorch (.pth, .pt, .model) or safetensors")
      ->required()
      ->check(CLI::ExistingFile);
  command->add_option("output", options->output, "The .safetensors file to write")->required();
  command->add_flag("--partial", options->partial,
                    "Weights of another task: what is missing or has another shape keeps its starting value");
  add_common(*command, options->common);
  command->callback([options, &code] {
    options->common.apply();
    code = command_import(*options);
  });
}

int command_import(const ImportOptions& o) {
  const ImportReport report = import_checkpoint(resolve_net(o.net), o.input, o.output, o.partial);
  if (o.common.json) {
    std::cout << nlohmann::json{{"loaded", report.loaded},         {"missing", report.missing},
                                {"unexpected", report.unexpected}, {"reshaped", report.reshaped},
                                {"ignored", report.ignored},       {"skipped", report.skipped}}
                     .dump(2)
              << '\n';
  } else {
    const auto list = [](const char* what, const std::vector<std::string>& keys) {
      std::cout << fmt::format("{} {}\n", keys.size(), what);
      for (const std::string& key : keys) std::cout << "  " << key << '\n';
    };
    std::cout << fmt::format("{} tensors imported to {}\n", report.loaded, o.output.string());
    list("missing (of the network, not in the file)", report.missing);
    list("unexpected (in the file, not of the network)", report.unexpected);
    list("reshaped (same elements, other axes)", report.reshaped);
    list("ignored (counters and aliases)", report.ignored);
    if (o.partial) list("skipped (another shape: the starting value stays)", report.skipped);
  }
  const bool whole = o.partial ? report.loaded > 0 : report.missing.empty();
  return whole && report.unexpected.empty() ? exit_done : exit_negative;
}

}  // namespace voxlab
