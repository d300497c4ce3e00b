// Training batches: which case, where the patch lies, and its augmentation. A batch is a pure
// function of the sampler and the step. A 2-d network sees patches of single slices: any slice of a
// volume, or the only one of a picture.
#pragma once

#include <cstdint>
#include <vector>

#include "experiments/data/augment.h"
#include "experiments/data/cases.h"

namespace voxlab {

struct Batch {
  int64_t step = 0;
  Tensor image;  // (N, D, H, W, C) f32, or (N, H, W, C)
  Tensor label;  // (N, D, H, W) i32 class indices, or (N, H, W)
};

struct SamplerOptions {
  std::vector<int64_t> patch;  // z, y, x; or y, x
  int64_t batch = 2;
  double foreground = 1.0 / 3;  // share of samples that are centred on a voxel of some class
  AugmentConfig augment;
  uint64_t seed = 0;
};

class PatchSampler {
 public:
  // Every case needs a label. Error when there are none, or when the channels differ.
  PatchSampler(std::vector<Case> cases, SamplerOptions options);

  // Safe from several threads; uses no other thread itself.
  Batch batch(int64_t step) const;

  struct Place {
    size_t which = 0;        // index of the case
    Size3 begin{};           // negative where the volume is padded
    int32_t centred_on = 0;  // class; 0: the position is free
  };
  // Sample number n = step * batch + position in the batch. Every third (by default) is forced onto
  // the foreground: the case is free, then one of its classes, then one of the class's voxels.
  Place place(int64_t n, Draws& draws) const;

  const std::vector<Case>& cases() const { return cases_; }

 private:
  struct Foreground {
    int32_t label = 0;
    std::vector<uint32_t> voxels;
  };
  Size3 begin_around(const Case& from, const Size3& voxel) const;

  std::vector<Case> cases_;
  SamplerOptions options_;
  Size3 patch_{};                                    // one slice deep for a 2-d network
  std::vector<std::vector<Foreground>> foreground_;  // of each case, by rising class
};

}  // namespace voxlab
