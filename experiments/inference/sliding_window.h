// Prediction of a whole volume by a network that sees one patch at a time.
#pragma once

#include <functional>
#include <vector>

#include "experiments/inference/tiles.h"
#include "runtime/core/tensor.h"

namespace voxlab {

// Patches (N, [D,] H, W, C) in, logits (N, [D,] H, W, K) out; the same grid, any floating dtype.
using PatchNetwork = std::function<Tensor(const Tensor& patches)>;

// Applied to the network's output before windows are averaged. nnU-Net v1 and the papers built on
// it average probabilities; nnU-Net v2 and MONAI's sliding_window_inference average what they are
// given.
enum class OutputActivation { none, sigmoid, softmax };
constexpr auto enum_names(OutputActivation) {
  return std::array{std::pair{std::string_view("none"), OutputActivation::none},
                    std::pair{std::string_view("sigmoid"), OutputActivation::sigmoid},
                    std::pair{std::string_view("softmax"), OutputActivation::softmax}};
}

struct SlidingWindowOptions {
  std::vector<int64_t> patch;  // {D, H, W} or {H, W}
  TileStyle style = TileStyle::nnunet;
  double step = 0.5;                 // nnunet: distance between windows, as a share of the patch
  double overlap = 0.5;              // monai: share of the patch that neighbours have in common
  bool gaussian = true;              // false: all voxels of a window count the same
  std::vector<int64_t> mirror_axes;  // spatial axes, 0 first; averages over all their subsets
  OutputActivation activation = OutputActivation::none;
  int64_t batch = 1;              // windows in one call of the network: in every call, for plans have one shape
  DType accumulate = DType::f32;  // of the sums and the result: f32 or f64
  std::function<void(int64_t done, int64_t total)> progress;  // after each call, in windows

  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("patch", s.patch);
    v("style", s.style);
    v("step", s.step);
    v("overlap", s.overlap);
    v("gaussian", s.gaussian);
    v("mirror_axes", s.mirror_axes);
    v("activation", s.activation);
    v("batch", s.batch);
  }
};

// What is done with a plane of finished scores (H, W, K): it is number n * D + d of the volume
// (N, D, H, W, C), n of (N, H, W, C). Planes come in this order; the tensor may be kept.
using PlaneUse = std::function<void(int64_t plane, const Tensor& scores)>;

// volume (N, [D,] H, W, C), f32 or f64 -> scores of K classes in `accumulate`. An axis shorter than
// the patch is padded with zeros, half before and the odd one after, and the result is cropped
// back. A 2-d network over the slices of a volume: pass the slices as the batch (D, H, W, C).
// Memory: scores and weights of as many planes as a patch is deep, and the windows of one call.
void sliding_planes(const Tensor& volume, const PatchNetwork& network,
                    const SlidingWindowOptions& options, const PlaneUse& use);

// The same in one tensor (N, [D,] H, W, K).
Tensor sliding_window(const Tensor& volume, const PatchNetwork& network,
                      const SlidingWindowOptions& options);

}  // namespace voxlab
