// What several sub-commands take from the command line in the same way.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>

#include "experiments/main/commands.h"
#include "runtime/core/visit.h"

namespace voxlab {

inline void add_common(CLI::App& command, CommonOptions& common) {
  command.add_flag("-q,--quiet", common.quiet, "No progress, only results and errors");
  command.add_flag("--json", common.json, "Results (and progress) as JSON on standard output");
  command.add_option("--threads", common.threads, "Threads; default: OMP_NUM_THREADS or all cores")
      ->check(CLI::Range(1, 4096));
}

// A text that must be one of the names of an enum.
template <class E>
CLI::Option* add_choice(CLI::App& command, const std::string& flag, E& value,
                        const std::string& help) {
  std::map<std::string, E> names;
  for (const auto& [text, each] : enum_names(E{})) names.emplace(text, each);
  return command
      .add_option_function<std::string>(
          flag, [&value](const std::string& text) { value = parse_enum<E>(text); }, help)
      ->check(CLI::IsMember(names))
      ->default_str(std::string(to_string(value)));
}

inline CLI::Option* add_dtype(CLI::App& command, DType& dtype, const std::vector<std::string>& names,
                              const std::string& help) {
  return command
      .add_option_function<std::string>(
          "--dtype", [&dtype](const std::string& text) { dtype = parse_dtype(text); }, help)
      ->check(CLI::IsMember(names))
      ->default_str(std::string(name(dtype)));
}

inline void add_set(CLI::App& command, std::vector<std::string>& set) {
  command
      .add_option("--set", set,
                  "KEY=VALUE over what the file says, e.g. --set train.steps=100 (repeatable)")
      ->type_name("KEY=VALUE")
      ->take_all()
      ->expected(1);
}

inline void add_net(CLI::App& command, NetOptions& net) {
  command.add_option("net", net.net, "Network: unetr_pp");
  command.add_option("--variant", net.variant,
                     "Released variant of it (unetr_pp: synapse, acdc, lung, tumor)");
  command.add_option("--config", net.config, "TOML file with the network's table instead of a variant")
      ->check(CLI::ExistingFile);
  add_set(command, net.set);
}

}  // namespace voxlab
