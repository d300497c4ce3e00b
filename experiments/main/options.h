// What several sub-commands take from the command line in the same way.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "experiments/main/commands.h"
#include "runtime/core/visit.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace voxlab {

void add_common(CLI::App& command, CommonOptions& common);
void add_set(CLI::App& command, std::vector<std::string>& set);
// `name`: how the network is given, a positional argument unless it starts with dashes.
void add_net(CLI::App& command, NetOptions& net, const char* name = "net");
// --precision: auto, strict, bf16x3, bf16.
CLI::Option* add_precision(CLI::App& command, Arithmetic& precision);
// --batch: samples of a pass or training step.
void add_batch(CLI::App& command, int64_t& batch);
std::string samples(int64_t batch);  // "one sample", "2 samples"
CLI::Option* add_dtype(CLI::App& command, DType& dtype, const std::vector<std::string>& names,
                       const std::string& help);

// A text that must be one of `allowed`.
CLI::Option* add_text_choice(CLI::App& command, const std::string& flag,
                             const std::vector<std::string>& allowed, std::string_view initial,
                             std::function<void(const std::string&)> set, const std::string& help);

// One of the names of an enum, or one of `allowed` of them.
template <class E>
CLI::Option* add_choice(CLI::App& command, const std::string& flag, E& value,
                        const std::string& help, std::vector<std::string> allowed = {}) {
  if (allowed.empty())
    for (const auto& [text, each] : enum_names(E{})) allowed.emplace_back(text);
  return add_text_choice(
      command, flag, allowed, to_string(value),
      [&value](const std::string& text) { value = parse_enum<E>(text); }, help);
}

}  // namespace voxlab
