// `voxlab time`.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "experiments/export/export.h"
#include "experiments/main/net_options.h"
#include "experiments/main/options.h"
#include "experiments/run/machine.h"
#include "experiments/run/timing.h"
#include "runtime/core/error.h"
#include "runtime/io/safetensors.h"
#include "runtime/runtime.h"

namespace voxlab {
namespace {

// One line of JSON for every line of standard input, until it ends: another program alternates us with
// its own work, both staying warm.
int serve(NetworkWork& work, Arithmetic precision) {
  std::string line;
  while (std::getline(std::cin, line)) {
    const double seconds = time_runs(work, 0, 1).front();
    const nlohmann::json answer{{"seconds", seconds}, {"peak_bytes", memory_report(Device::cpu).peak},
                                {"precision", to_string(precision)}, {"implementation", describe(this_machine())}};
    std::cout << answer.dump() << std::endl;
  }
  return exit_done;
}

// The image of a file, channels last, in place of the drawn one; its logits into a file.
void use_files(const TimeOptions& o, NetworkWork& work, const NetConfig& config) {
  if (!o.weights.empty()) load_weights(config, work.network(), o.weights);
  if (!o.image.empty()) {
    if (o.training) fail("time", "--image is for inference: a training step draws its input and labels");
    const Tensor image = SafetensorsFile(o.image).read("image");
    if (image.dtype() != DType::f32 || image.rank() < 3)
      fail(o.image.string(), "expected \"image\" in f32, channels after the batch");
    work.set_image(with_channels_last(image));
  }
  if (o.logits.empty()) return;
  {
    const Tensor logits = work.logits().to(DType::f32);
    NamedTensors file;
    file.add("logits", with_channels_first(logits));
    write_safetensors(o.logits, file);
  }
  release_cached_blocks();  // the memory of what follows is inference's alone
}

}  // namespace

void add_time(CLI::App& app, int& code) {
  auto options = std::make_shared<TimeOptions>();
  CLI::App* command = app.add_subcommand("time", "Latency of inference or of a training step");
  add_net(*command, options->net);
  command->footer("Prints the median with quartiles, device, precision, threads and number of runs. The input is\n"
                  "ready before the clock starts. --weights, --image and --logits let others compute the same:\n"
                  "tensors \"image\" and \"logits\" have their channels after the batch, as in an ONNX file of ours.");
  add_precision(*command, options->precision);
  command->add_flag("--training", options->training, "A training step instead of inference");
  command->add_option("--warmup", options->warmup, "Runs before the clock starts")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  command->add_option("--repeats", options->repeats, "Runs measured")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command->add_flag("--stdin", options->from_stdin,
                    "One run for each line of standard input, answered by one line of JSON");
  command->add_flag("--volume", options->volume,
                    "A whole volume by a sliding window: half a window longer along each axis, or eight slices");
  add_batch(*command, options->batch);
  command->add_option("--weights", options->weights, "A .safetensors file of `voxlab import`")
      ->check(CLI::ExistingFile);
  command->add_option("--image", options->image, "A .safetensors file with the input, \"image\"")
      ->check(CLI::ExistingFile);
  command->add_option("--logits", options->logits, "The .safetensors file for the \"logits\", written first");
  command->add_flag("--recompute", options->recompute, "Of a training step: as train.recompute")->needs("--training");
  command->add_flag("--eager", options->eager, "Inference op by op, not by a plan");
  add_common(*command, options->common);
  command->callback([options, &code] {
    options->common.apply();
    code = command_time(*options);
  });
}

int command_time(const TimeOptions& o) {
  const NetConfig config = resolve_net(o.net);
  const Arithmetic precision = resolve(o.precision);
  NetworkWork work(config, {.training = o.training,
                            .precision = precision,
                            .batch = o.batch,
                            .plan = !o.eager,
                            .recompute = o.recompute,
                            .volume = o.volume});
  use_files(o, work, config);
  if (o.from_stdin) return serve(work, precision);
  reset_peak(Device::cpu);
  // It traces and plans.
  const double first = o.warmup == 0 ? 0 : time_runs(work, 0, 1).front();
  const Spread s = spread_of(time_runs(work, std::max<int64_t>(o.warmup - 1, 0), o.repeats));
  const MemoryReport memory = memory_report(Device::cpu);
  const Machine machine = this_machine();
  if (o.common.json) {
    std::cout << nlohmann::json{{"seconds", s.median},       {"low_quartile", s.low_quartile},
                                {"high_quartile", s.high_quartile}, {"least", s.least},
                                {"n", s.n},                  {"first_seconds", o.warmup == 0 ? nlohmann::json() : nlohmann::json(first)},
                                {"peak_bytes", memory.peak},
                                {"precision", to_string(precision)}, {"training", o.training},
                                {"batch", o.batch},          {"volume", o.volume},
                                {"machine", describe(machine)}}
                     .dump()
              << '\n';
    return exit_done;
  }
  std::cout << fmt::format("{} of {}, {}, {}\n  median {:.4g} s, quartiles {:.4g} to {:.4g} s, least {:.4g} s, n = {} after {} warm-up runs{}\n"
                           "  in the clock: {}\n  peak of tensors {:.1f} MiB\n",
                           o.training ? "training step" : "inference",
                           o.volume ? "a whole volume" : samples(o.batch),
                           to_string(precision), describe(machine), s.median,
                           s.low_quartile, s.high_quartile, s.least, s.n, o.warmup,
                           o.warmup == 0 ? "" : fmt::format(", the first of which took {:.4g} s", first),
                           o.training ? "forward, loss, backward, clipping, SGD update" : "image tensor to logits",
                           static_cast<double>(memory.peak) / (1 << 20));
  return exit_done;
}

}  // namespace voxlab
