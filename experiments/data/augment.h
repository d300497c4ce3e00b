// Augmentation of training patches, with nnU-Net v2's default probabilities and ranges
// (nnUNetTrainer.get_training_transforms): one linear resample for flips, rotation and scaling,
// then noise, brightness, contrast and gamma. All random numbers come from one Draws.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "experiments/data/volume.h"
#include "runtime/core/rng.h"

namespace voxlab {

struct AugmentConfig {
  // z, y, x; each flipped with probability 1/2. A 2-d network has no z to flip.
  std::vector<int64_t> mirror_axes{0, 1, 2};
  double rotate_probability = 0.2;
  double rotate_degrees = 30;  // about each axis, uniform within +-; in 2-d about z alone
  double scale_probability = 0.2;
  std::array<double, 2> scale{0.7, 1.4};  // above 1 the patch shows more, smaller
  double noise_probability = 0.1;
  double noise_variance = 0.1;  // at most; the image has variance near 1
  double brightness_probability = 0.15;
  std::array<double, 2> brightness{0.75, 1.25};
  double contrast_probability = 0.15;
  std::array<double, 2> contrast{0.75, 1.25};
  double gamma_probability = 0.3;
  double gamma_inverted_probability = 0.1;  // of the negative image
  std::array<double, 2> gamma{0.7, 1.5};

  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("mirror_axes", s.mirror_axes);
    v("rotate_probability", s.rotate_probability);
    v("rotate_degrees", s.rotate_degrees);
    v("scale_probability", s.scale_probability);
    v("scale", s.scale);
    v("noise_probability", s.noise_probability);
    v("noise_variance", s.noise_variance);
    v("brightness_probability", s.brightness_probability);
    v("brightness", s.brightness);
    v("contrast_probability", s.contrast_probability);
    v("contrast", s.contrast);
    v("gamma_probability", s.gamma_probability);
    v("gamma_inverted_probability", s.gamma_inverted_probability);
    v("gamma", s.gamma);
  }

  static AugmentConfig none();
};

// Error naming the first field that makes no sense.
void validate(const AugmentConfig& config);

// Random numbers one after the other; all of them follow from (seed, stream, step).
class Draws {
 public:
  Draws(uint64_t seed, uint32_t stream, uint32_t step) : philox_(seed, stream, step) {}
  double uniform() { return philox_.uniform(next_++); }
  double uniform(const std::array<double, 2>& range) {
    return range[0] + (range[1] - range[0]) * uniform();
  }
  bool chance(double p) { return uniform() < p; }
  int64_t below(int64_t n) { return philox_.below(next_++, n); }
  // Adds independent normal numbers to every value; from a part of the counter that nothing else
  // reaches.
  void add_normal(std::span<float> values, double deviation) const;

 private:
  Philox philox_;
  uint64_t next_ = 0;
};

using Matrix3 = std::array<std::array<double, 3>, 3>;

// Where a patch reads: output voxel o takes the voxel begin + centre + matrix (o - centre).
struct PatchMap {
  Matrix3 matrix{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  bool resampled = false;  // false: the matrix only flips axes, so that voxels are copied
};

// Rotations are right in millimetres: on an anisotropic grid they shear in voxels. `in_plane`:
// nothing leaves the slice.
PatchMap draw_map(const AugmentConfig& config, const Spacing3& spacing, Draws& draws,
                  bool in_plane = false);

// image (D, H, W, C) f32, label (D, H, W) u8. Writes size[0] x size[1] x size[2] voxels from
// `begin`, which may lie outside; there the image is 0 and the label background. Linear for the
// image, nearest for the label.
void read_patch(const Tensor& image, const Tensor& label, const Size3& begin, const Size3& size,
                const PatchMap& map, std::span<float> image_out, std::span<int32_t> label_out);

// In place on (voxels, channels) f32.
void augment_intensity(const AugmentConfig& config, std::span<float> patch, int64_t channels,
                       Draws& draws);

// ((x - min) / range)^gamma over one channel, brought back to the mean and deviation it had.
void apply_gamma(std::span<float> patch, int64_t channel, int64_t channels, double gamma,
                 bool inverted);

}  // namespace voxlab
