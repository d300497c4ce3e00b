// `voxlab peaks`: what the machine can do at most, for the floors that times are told against.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "experiments/main/commands.h"
#include "experiments/main/options.h"
#include "experiments/run/machine.h"
#include "runtime/runtime.h"

namespace voxlab {

void add_peaks(CLI::App& app, int& code) {
  auto options = std::make_shared<CommonOptions>();
  CLI::App* command = app.add_subcommand("peaks", "Measured peaks of this machine: arithmetic and memory");
  command->footer("Multiply-adds count as two flops. f32: in registers; bf16: with f32 sums, from the first-level cache,\n"
                  "or the f32 figure where no kernel multiplies bf16; copies: 128 MiB, bytes read and written.");
  add_common(*command, *options);
  command->callback([options, &code] {
    options->apply();
    code = command_peaks(*options);
  });
}

int command_peaks(const CommonOptions& options) {
  const MachinePeaks peaks = machine_peaks();
  const std::string machine = describe(this_machine());
  if (options.json) {
    std::cout << nlohmann::json{{"f32_gflops", peaks.f32_gflops},
                                {"bf16_gflops", peaks.bf16_gflops},
                                {"copy_gbytes_per_s", peaks.copy_gbytes_per_s},
                                {"machine", machine}}
                     .dump()
              << '\n';
  } else {
    std::cout << fmt::format("{}\n  f32   {:8.1f} Gflop/s\n  bf16  {:8.1f} Gflop/s\n  copy  {:8.1f} GB/s\n", machine,
                             peaks.f32_gflops, peaks.bf16_gflops, peaks.copy_gbytes_per_s);
  }
  return exit_done;
}

}  // namespace voxlab
