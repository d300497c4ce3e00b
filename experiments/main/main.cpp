// The program voxlab.
#include <CLI/CLI.hpp>
#include <exception>
#include <iostream>

#include "experiments/main/commands.h"
#include "experiments/run/machine.h"
#include "runtime/runtime.h"

namespace voxlab {
namespace {

constexpr const char* footer = R"(
Exit codes: 0 done; 1 done, and the answer is no (a record disagrees, a run of a sweep failed);
2 an error, said in one line "voxlab: ..." on standard error.

  voxlab sweep experiments/suites/unetr_pp_epa_small.toml    train a small ablation
  voxlab table experiments/suites/unetr_pp_epa_small.toml    print its table
  voxlab count unetr_pp --variant synapse --rule fvcore      parameters and MACs at the paper's size
)";

int fail_with(std::string message) {
  for (char& c : message)
    if (c == '\n') c = ' ';
  std::cerr << "voxlab: " << message << '\n';
  return exit_error;
}

int run(int argc, const char* const* argv) {
  CLI::App app("voxlab: segmentation networks for medical volumes - train, score, count, compare",
               "voxlab");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string(build_revision()));
  app.footer(footer);
  int code = exit_done;
  for (auto add : {add_train, add_predict, add_evaluate, add_count, add_golden, add_import,
                   add_export, add_sweep, add_table, add_time, add_profile,
                   add_peaks})
    add(app, code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return fail_with(std::string(error.what()) + "; see voxlab --help");
  }
  return code;
}

}  // namespace
}  // namespace voxlab

int main(int argc, char** argv) {
  try {
    voxlab::initialise_runtime();
    return voxlab::run(argc, argv);
  } catch (const std::bad_alloc&) {
    return voxlab::fail_with("out of memory");
  } catch (const std::exception& error) {
    return voxlab::fail_with(error.what());
  }
}
