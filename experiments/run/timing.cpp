#include "experiments/run/timing.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "experiments/inference/sliding_window.h"
#include "runtime/core/allocator.h"
#include "runtime/core/error.h"
#include "runtime/core/rng.h"
#include "runtime/ops/call.h"
#include "runtime/plan/plan.h"
#include "runtime/train/step.h"

namespace voxlab {

struct NetworkWork::State {
  WorkOptions options;
  Network net;
  Tensor input, labels;
  std::optional<train::Optimizer> optimizer;
  std::optional<Plan> planned;
  std::optional<train::TrainingStep> training;
  int64_t step = 0;

  Tensor one_pass(const Tensor& x) {
    if (!options.plan) return net.forward(x, {.all_outputs = options.all_outputs}).front();
    if (!planned) plan_for(x);
    return (*planned)({x}).front();
  }

  // All passes are of one shape. The plan takes the network over.
  void plan_for(const Tensor& x) {
    net.parameters = {};
    planned.emplace([forward = std::exchange(net.forward, {}), all = options.all_outputs](const Tensors& in) {
      return forward(in[0], {.all_outputs = all});
    }, Metas{x.meta()});
    release_cached_blocks();
  }

  Tensor infer() {
    const ArithmeticScope products(options.precision);
    if (!options.volume) return one_pass(input);
    return sliding_window(input, [&](const Tensor& x) { return one_pass(x); },
                          {.patch = net.patch, .style = TileStyle::monai, .overlap = 0.5});
  }

  void train_step() {
    (*training)(input, labels, optimizer->config().lr, step++);
  }
};

train::LossConfig timing_loss(int64_t classes) {
  train::LossConfig loss = train::LossConfig::nnunet(false);
  loss.background = classes < 2;  // a single class has no background to leave out
  return loss;
}

NetworkWork::NetworkWork(const NetConfig& config, const WorkOptions& options) : state_(std::make_unique<State>()) {
  if (options.volume && (options.training || options.batch != 1))
    fail("time", "a whole volume is one inference: no training step, no batch");
  state_->options = options;
  state_->net = make_network(config, {.device = Device::cpu});
  const bool slices = options.volume && state_->net.patch.size() == 2;
  Shape spatial{slices ? 8 : options.batch};
  for (int64_t size : state_->net.patch) spatial.push_back(options.volume && !slices ? size * 3 / 2 : size);
  Shape shape = spatial;
  shape.push_back(state_->net.in_channels);
  const Philox random(7);
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.normal(i));
  state_->input = Tensor::from_span(shape, std::span<const float>(values));
  if (!options.training) return;
  state_->labels = Tensor::empty(spatial, DType::i32);
  const Philox classes(8);
  for (int64_t i = 0; i < spatial.numel(); ++i)
    state_->labels.data<int32_t>()[i] =
        static_cast<int32_t>(classes.below(static_cast<uint64_t>(i), state_->net.classes));
  state_->optimizer.emplace(train::make_optimizer({.lr = 1e-6}, state_->net.parameters));
  state_->training.emplace(state_->net.forward, state_->net.parameters, *state_->optimizer,
                           train::StepConfig{.loss = timing_loss(state_->net.classes),
                                             .precision = options.precision,
                                             .seed = 1,
                                             .recompute = options.recompute,
                                             .plan = options.plan});
}

NetworkWork::~NetworkWork() = default;

void NetworkWork::run() {
  if (state_->options.training)
    state_->train_step();
  else
    state_->infer();
}

Network& NetworkWork::network() { return state_->net; }

void NetworkWork::set_image(const Tensor& image) {
  const Shape& shape = image.shape();
  const auto& patch = state_->net.patch;
  bool fits = image.rank() == static_cast<int64_t>(patch.size()) + 2 &&
              shape[image.rank() - 1] == state_->net.in_channels;
  for (size_t axis = 0; fits && axis < patch.size(); ++axis)
    fits = state_->options.volume || shape[static_cast<int64_t>(axis) + 1] == patch[axis];
  if (!fits)
    fail("image", "is " + shape.to_string() + ", the network takes " + state_->input.shape().to_string() +
                      " (channels last)");
  state_->input = image;
}

Tensor NetworkWork::logits() { return state_->infer(); }

Spread spread_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double q) {  // linear interpolation between order statistics
    const double position = q * static_cast<double>(values.size() - 1);
    const auto low = static_cast<size_t>(position);
    const size_t high = std::min(low + 1, values.size() - 1);
    return values[low] + (position - static_cast<double>(low)) * (values[high] - values[low]);
  };
  return {at(0.5), at(0.25), at(0.75), values.front(), values.back(), static_cast<int64_t>(values.size())};
}

std::vector<double> time_runs(NetworkWork& work, int64_t warmup, int64_t repeats) {
  for (int64_t i = 0; i < warmup; ++i) work.run();
  std::vector<double> seconds;
  for (int64_t i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work.run();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return seconds;
}

}  // namespace voxlab
