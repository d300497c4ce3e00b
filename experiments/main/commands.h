// The sub-commands of voxlab: what each takes from the command line, and the function that does it.
// Every function returns the exit code: 0 done, 1 done with a negative answer (a record disagrees, a run
// failed); what is wrong with the input is an Error, printed as one line, exit code 2.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "experiments/report/table.h"
#include "runtime/core/arithmetic.h"
#include "runtime/core/device.h"
#include "runtime/core/dtype.h"

namespace CLI {
class App;
}

namespace voxlab {

constexpr int exit_done = 0, exit_negative = 1, exit_error = 2;

struct CommonOptions {
  bool quiet = false;  // no progress
  bool json = false;   // machine-readable output on standard output
  int threads = 0;     // 0: OpenMP's choice
  void apply() const;  // sets the number of threads
};

struct TrainOptions {
  CommonOptions common;
  std::filesystem::path config;
  std::vector<std::string> set;  // KEY=VALUE
  std::filesystem::path runs = "results/runs";
  bool again = false;  // start over, even when the run is finished
  bool dry_run = false;
};

struct PredictOptions {
  CommonOptions common;
  std::filesystem::path run;     // a run folder
  std::vector<std::filesystem::path> inputs;
  std::filesystem::path output;
  std::string checkpoint = "last";
  std::optional<Arithmetic> precision;  // none: the run's own
  bool mirror = true;
  double overlap = 0.5;
};

struct EvaluateOptions {
  CommonOptions common;
  std::filesystem::path prediction;  // a volume, or a folder of them
  std::filesystem::path reference;
  std::vector<std::string> rules;
  std::vector<int64_t> labels;       // empty: all that occur in the references
  std::filesystem::path output;      // JSON; empty: none
};

// A network by name and variant, or from a configuration.
struct NetOptions {
  std::string net;
  std::string variant;
  std::filesystem::path config;
  std::vector<std::string> set;
};

struct CountOptions {
  CommonOptions common;
  NetOptions net;
  std::string rule = "mac";
  std::vector<std::string> explain;  // two rules; empty: none
  bool training = false;             // layers and explanation of the forward pass in training mode
  bool recompute = false;            // of the training step
  bool layers = false;
  int depth = 1;
  std::filesystem::path table;       // folder of counting tools' records; empty: none
  std::filesystem::path output;      // of the table; empty: standard output
  std::filesystem::path published = "results/published";
};

struct GoldenCommandOptions {
  CommonOptions common;
  std::vector<std::filesystem::path> paths;
  Device backend = Device::cpu;
  DType dtype = DType::f32;
  Arithmetic precision = Arithmetic::strict;
  bool all = false;  // every row of every file
};

struct ImportOptions {
  CommonOptions common;
  NetOptions net;
  std::filesystem::path input, output;
  bool partial = false;
};

struct ExportOptions {
  CommonOptions common;
  std::filesystem::path run;  // a run folder; empty: `net`
  std::string checkpoint = "last";
  NetOptions net;
  std::filesystem::path weights;  // safetensors; empty: the starting values
  std::filesystem::path onnx;
  std::filesystem::path check;    // empty: none
};

struct SweepOptions {
  CommonOptions common;
  std::filesystem::path suite;
  std::vector<std::string> set;
  std::filesystem::path runs = "results/runs";
  std::filesystem::path published = "results/published";
  bool dry_run = false;
};

struct TableOptions {
  CommonOptions common;
  std::filesystem::path suite;
  std::vector<std::string> set;
  std::filesystem::path runs = "results/runs";
  std::filesystem::path published = "results/published";
  TableFormat format = TableFormat::text;
  std::filesystem::path output;  // empty: standard output
};

struct TimeOptions {
  CommonOptions common;
  NetOptions net;
  Arithmetic precision = Arithmetic::automatic;
  bool training = false;
  int64_t warmup = 2;
  int64_t repeats = 10;
  bool from_stdin = false;
  bool eager = false;
  bool recompute = false;
  bool volume = false;
  int64_t batch = 1;
  std::filesystem::path weights, image, logits;
};

struct ProfileOptions {
  CommonOptions common;
  NetOptions net;
  Arithmetic precision = Arithmetic::automatic;
  bool training = false;
  int64_t repeats = 3;
  int64_t batch = 1;
  int depth = 2;
  int64_t rows = 40;
  std::filesystem::path trace;  // empty: none
  bool eager = false;
  bool recompute = false;
};

int command_train(const TrainOptions& options);
int command_predict(const PredictOptions& options);
int command_evaluate(const EvaluateOptions& options);
int command_count(const CountOptions& options);
int command_golden(const GoldenCommandOptions& options);
int command_import(const ImportOptions& options);
int command_export(const ExportOptions& options);
int command_sweep(const SweepOptions& options);
int command_table(const TableOptions& options);
int command_time(const TimeOptions& options);
int command_profile(const ProfileOptions& options);
int command_peaks(const CommonOptions& options);

// Each adds its sub-command with all options and stores its exit code in `code` when it is called.
void add_train(CLI::App& app, int& code);
void add_predict(CLI::App& app, int& code);
void add_evaluate(CLI::App& app, int& code);
void add_count(CLI::App& app, int& code);
void add_golden(CLI::App& app, int& code);
void add_import(CLI::App& app, int& code);
void add_export(CLI::App& app, int& code);
void add_sweep(CLI::App& app, int& code);
void add_table(CLI::App& app, int& code);
void add_time(CLI::App& app, int& code);
void add_profile(CLI::App& app, int& code);
void add_peaks(CLI::App& app, int& code);

}  // namespace voxlab
