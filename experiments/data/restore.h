// The way back from scores on the preprocessed grid to labels on the file's grid, plane by plane:
// the scores of a whole volume need never be in memory.
#pragma once

#include <deque>
#include <functional>
#include <span>
#include <vector>

#include "experiments/data/preprocess.h"
#include "experiments/data/resample.h"
#include "experiments/data/resample_block.h"

namespace voxlab {

// resample_image for an f32 image whose planes (y, x, C) come one after the other. Linear and
// nearest interpolation along z hold the planes that the next one of the result lies between, cubic
// interpolation all of them: its prefilter and its clipping see the whole axis.
class PlaneResampler {
 public:
  // `use` gets the result's planes (y, x, C), f32, in order.
  PlaneResampler(const Size3& from, const Size3& to, const ResampleRule& rule,
                 std::function<void(const Tensor& plane)> use);
  void add(const Tensor& plane);

 private:
  void add_linear(const Tensor& plane);
  void add_cubic(const Tensor& plane);

  Size3 from_, to_;
  ResampleRule rule_;
  AxisMap along_;  // z
  std::function<void(const Tensor& plane)> use_;
  int64_t got_ = 0, made_ = 0;              // planes
  std::deque<std::vector<double>> planes_;  // resized in y and x; the last one is number got_ - 1
  std::vector<double> scratch_;
  Tensor whole_;  // cubic: what has come so far
};

// Scores of one case in, classes out.
class ClassRestorer {
 public:
  ClassRestorer(const CaseGeometry& geometry, int order, std::span<const uint8_t> over_half = {});
  // The next plane (H, W, K) f32 of the preprocessed grid.
  void add(const Tensor& scores);
  // classes_of the resampled scores on the whole grid of the file, (z, y, x) u8; background outside
  // the box. Error unless every plane has come.
  Tensor finish() const;

 private:
  void write(const Tensor& scores);

  CaseGeometry geometry_;
  std::vector<uint8_t> over_half_;
  PlaneResampler resampler_;
  Tensor classes_;
  int64_t got_ = 0, made_ = 0;  // planes
};

// ClassRestorer for scores (D, H, W, K) f32 that are in memory.
Tensor restore_classes(const Tensor& scores, const CaseGeometry& geometry, int order,
                       std::span<const uint8_t> over_half = {});

// Scores (D, H, W, K) f32 -> classes (D, H, W) u8: the channel of the largest score, the first of
// equals; or 0, then over_half[k] wherever channel k exceeds 0.5, later channels over earlier ones.
Tensor classes_of(const Tensor& scores, std::span<const uint8_t> over_half = {});

}  // namespace voxlab
