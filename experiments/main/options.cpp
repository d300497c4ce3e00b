#include "experiments/main/options.h"

#include <CLI/CLI.hpp>

#include "nets/zoo.h"
#include "runtime/core/parallel.h"

namespace voxlab {

void CommonOptions::apply() const {
  if (threads > 0) set_thread_count(threads);
}

void add_common(CLI::App& command, CommonOptions& common) {
  command.add_flag("-q,--quiet", common.quiet, "No progress, only results and errors");
  command.add_flag("--json", common.json, "Results (and progress) as JSON on standard output");
  command.add_option("--threads", common.threads, "Threads; default: OMP_NUM_THREADS or all cores")
      ->check(CLI::Range(1, 4096));
}

void add_set(CLI::App& command, std::vector<std::string>& set) {
  command
      .add_option("--set", set,
                  "KEY=VALUE over what the file says, e.g. --set train.steps=100 (repeatable)")
      ->type_name("KEY=VALUE")
      ->take_all()
      ->expected(1);
}

void add_net(CLI::App& command, NetOptions& net, const char* name) {
  std::string nets, variants;
  for (const std::string& each : net_names()) {
    nets += (nets.empty() ? "" : ", ") + each;
    variants += (variants.empty() ? "" : "; ") + each + ":";
    for (const std::string& variant : net_variants(each)) variants += " " + variant;
  }
  command.add_option(name, net.net, "Network: " + nets);
  command.add_option("--variant", net.variant, "Released variant of it (" + variants + ")");
  command
      .add_option("--config", net.config, "TOML file with the network's table instead of a variant")
      ->check(CLI::ExistingFile);
  add_set(command, net.set);
}

void add_batch(CLI::App& command, int64_t& batch) {
  command.add_option("--batch", batch, "Samples of a pass or training step")->check(CLI::Range(1, 4096))->capture_default_str();
}

std::string samples(int64_t batch) { return batch == 1 ? "one sample" : std::to_string(batch) + " samples"; }

CLI::Option* add_precision(CLI::App& command, Arithmetic& precision) {
  return add_choice(command, "--precision", precision,
                    "Products: strict f32; bf16x3, three bf16 products for nearly f32, on AMX; bf16; auto: bf16x3 on "
                    "AMX, else strict");
}

CLI::Option* add_dtype(CLI::App& command, DType& dtype, const std::vector<std::string>& names,
                       const std::string& help) {
  return command
      .add_option_function<std::string>(
          "--dtype", [&dtype](const std::string& text) { dtype = parse_dtype(text); }, help)
      ->check(CLI::IsMember(names));
}

CLI::Option* add_text_choice(CLI::App& command, const std::string& flag,
                             const std::vector<std::string>& allowed, std::string_view initial,
                             std::function<void(const std::string&)> set, const std::string& help) {
  return command.add_option_function<std::string>(flag, std::move(set), help)
      ->check(CLI::IsMember(allowed))
      ->default_str(std::string(initial));
}

}  // namespace voxlab
