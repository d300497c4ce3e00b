// Runs one network over and over on random input: what `voxlab time`, `voxlab profile` and the benches
// measure.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "nets/zoo.h"
#include "runtime/core/arithmetic.h"
#include "runtime/train/loss.h"

namespace voxlab {

struct WorkOptions {
  bool training = false;    // a whole training step instead of inference
  bool all_outputs = false; // deep-supervision heads in inference
  Arithmetic precision = Arithmetic::strict;
  int64_t batch = 1;
  bool plan = true;         // by a plan; false: op by op
  bool recompute = false;   // a training step that makes blocks' activations again
  bool volume = false;      // inference of a volume by a sliding window, see below
};

// The loss of a training step that is measured or counted: nnU-Net's, whatever the network trains with.
train::LossConfig timing_loss(int64_t classes);

// One repetition of the work. Inference: image in, logits of the finest output out. Training step: forward,
// loss of every output (cross entropy + soft Dice a sample, weights halving), backward, gradient
// clipping at 12, SGD with Nesterov momentum 0.99. Whole volume: half a window further in every direction than
// the network's input (2-d networks: eight slices), in MONAI's windows that overlap by half, logits averaged with
// Gaussian weights. Input and labels are made beforehand.
class NetworkWork {
 public:
  NetworkWork(const NetConfig& config, const WorkOptions& options);
  ~NetworkWork();
  void run();
  Network& network();  // whose parameters a planned inference gives up with its first run
  // Inference of this image (N, spatial..., channels) from now on. Error when it does not fit the network.
  void set_image(const Tensor& image);
  // The finest logits of the image, (N, spatial..., classes): what an inference makes, in evaluation mode.
  Tensor logits();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Order statistics of repeated measurements; seconds.
struct Spread {
  double median = 0, low_quartile = 0, high_quartile = 0, least = 0, most = 0;
  int64_t n = 0;
};
Spread spread_of(std::vector<double> values);

// Times `repeats` runs after `warmup` ones. The clock holds run() only.
std::vector<double> time_runs(NetworkWork& work, int64_t warmup, int64_t repeats);

}  // namespace voxlab
