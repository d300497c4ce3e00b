// What one experiment is configured by: data, training, test.
#pragma once

#include <cstdint>
#include <string>

#include "experiments/data/augment.h"
#include "experiments/data/preprocess.h"
#include "nets/zoo.h"
#include "runtime/core/arithmetic.h"
#include "runtime/train/loss.h"
#include "runtime/train/optimizer.h"
#include "runtime/train/schedule.h"

namespace voxlab {

struct DataConfig {
  std::string
      source;  // a dataset folder, "colin27" (Debian's mricron-data) or "phantom" (generated)
  // Files of case ids, one a line, by path or inside the dataset folder; empty: the dataset's own.
  std::string train_list;
  std::string test_list;
  PreprocessConfig preprocess;
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("source", s.source);
    v("train_list", s.train_list);
    v("test_list", s.test_list);
    v("preprocess", s.preprocess);
  }
};

struct TrainConfig {
  int64_t steps = 1000;
  double minutes = 0;  // stop after this long, whatever the steps; 0: no limit
  int64_t batch = 2;
  Arithmetic precision = Arithmetic::automatic;  // resolved: strict, bf16x3, or bf16 with f32 master weights
  bool recompute = false;  // blocks' activations are made again by backward: the same bits, less memory, more time
  double foreground = 1.0 / 3;     // share of patches centred on a voxel of some class
  int64_t checkpoint_every = 100;  // steps; 0: at the end only
  int64_t validation_cases = 0;    // training cases, the last of the list, kept out of training
  int64_t validate_every = 0;      // steps between validations on them; 0: never. The best is kept
  AugmentConfig augment;
  train::LossConfig loss = train::LossConfig::nnunet();
  train::OptimizerConfig optimizer;
  train::ScheduleConfig schedule{.total = 0};  // total 0: `steps`
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("steps", s.steps);
    v("minutes", s.minutes);
    v("batch", s.batch);
    v("precision", s.precision);
    v("recompute", s.recompute);
    v("foreground", s.foreground);
    v("checkpoint_every", s.checkpoint_every);
    v("validation_cases", s.validation_cases);
    v("validate_every", s.validate_every);
    v("augment", s.augment);
    v("loss", s.loss);
    v("optimizer", s.optimizer);
    v("schedule", s.schedule);
  }
};

// How whole volumes are predicted and scored.
struct TestConfig {
  bool mirror = true;               // average over flips along the axes that training flips
  double step = 0.5;                // between windows, as a share of the patch
  std::string rule = "strict-mm";   // metric preset of the figures in tables
  std::string checkpoint = "last";  // or "best", by validation Dice
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("mirror", s.mirror);
    v("step", s.step);
    v("rule", s.rule);
    v("checkpoint", s.checkpoint);
  }
};

struct ExperimentConfig {
  int64_t seed = 0;
  NetConfig net;  // keys "net", "variant" and the network's own table, at the top
  DataConfig data;
  TrainConfig train;
  TestConfig test;
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("seed", s.seed);
    NetConfig::visit(s.net, v);
    v("data", s.data);
    v("train", s.train);
    v("test", s.test);
  }
};

// How products are formed in validation and test: as in training, but strict after bf16, whose weights are f32.
Arithmetic inference_arithmetic(const ExperimentConfig& config);

// Error naming the first setting that makes no sense.
void validate(const ExperimentConfig& config);

}  // namespace voxlab
