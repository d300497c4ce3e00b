// `voxlab predict`.
#include "experiments/run/predict.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>
#include <utility>

#include "experiments/main/options.h"
#include "runtime/runtime.h"

namespace voxlab {

void add_predict(CLI::App& app, int& code) {
  auto options = std::make_shared<PredictOptions>();
  CLI::App* command = app.add_subcommand("predict", "Segment volumes or pictures with a trained run");
  command->footer(
      "Each output holds labels on the input's grid, under the input's name: NIfTI for NIfTI, PNG for "
      "pictures.");
  command->add_option("run", options->run, "Folder of the run")
      ->required()
      ->check(CLI::ExistingDirectory);
  command->add_option("inputs", options->inputs, "NIfTI, PNG or JPEG files or folders of them")
      ->required()
      ->check(CLI::ExistingPath);
  command->add_option("-o,--output", options->output, "Folder for the label maps")->required();
  command->add_option("--checkpoint", options->checkpoint, "Which checkpoint of the run")
      ->check(CLI::IsMember({"last", "best"}))
      ->capture_default_str();
  command
      ->add_option_function<std::string>(
          "--precision",
          [options](const std::string& text) { options->precision = resolve(parse_enum<Arithmetic>(text)); },
          "auto, strict, bf16x3 or bf16; default: that of the run's own test")
      ->check(CLI::IsMember({"auto", "strict", "bf16x3", "bf16"}));
  command->add_flag("--mirror,!--no-mirror", options->mirror,
                    "Average over mirrored copies (default), or not");
  command
      ->add_option("--overlap", options->overlap, "Share of a patch that neighbours have in common")
      ->check(CLI::Range(0.0, 0.95))
      ->capture_default_str();
  add_common(*command, options->common);
  command->callback([options, &code] {
    options->common.apply();
    code = command_predict(*options);
  });
}

int command_predict(const PredictOptions& options) {
  TrainedModel model = load_model(options.run, options.checkpoint);
  const auto inputs =
      prediction_inputs(options.inputs, static_cast<int64_t>(model.card.channels.size()));
  const int64_t windows = windows_at_once(model.network, inputs.front().images.front());
  const Predictor predictor =
      predictor_of(std::exchange(model.network, {}), options.precision.value_or(inference_arithmetic(model.config)), windows);
  WindowOptions window = window_options(model.config);
  window.step = 1 - options.overlap;
  if (!options.mirror) window.mirror_axes.clear();
  nlohmann::json written = nlohmann::json::array();
  for (const PredictionInput& input : inputs) {
    const PredictedFile done = predict_file(predictor, model.card, input, options.output, window);
    for (const std::string& warning : done.warnings)
      if (!options.common.quiet) std::cerr << "voxlab: warning: " << warning << '\n';
    written.push_back(
        {{"input", input.id},
         {"output", done.file.string()},
         {"warnings", done.warnings},
         {"seconds",
          {{"prepare", done.seconds.prepare}, {"predict", done.seconds.predict}, {"write", done.seconds.write}}}});
    if (!options.common.json) std::cout << done.file.string() << std::endl;
  }
  if (options.common.json)
    std::cout << written.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
  return exit_done;
}

}  // namespace voxlab
