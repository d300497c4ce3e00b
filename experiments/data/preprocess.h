// Preprocessing of one case, in nnU-Net v1's order: crop to the non-zero box, resample, normalise.
// The way back: restore.h.
#pragma once

#include <array>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "experiments/data/crop.h"
#include "experiments/data/dataset.h"
#include "experiments/data/fingerprint.h"
#include "experiments/data/normalise.h"
#include "experiments/data/resample.h"
#include "runtime/core/visit.h"

namespace voxlab {

enum class NormaliseBy : uint8_t { automatic, zscore, ct, ct2, fixed, none };
constexpr auto enum_names(NormaliseBy) {
  return std::array{std::pair{std::string_view("auto"), NormaliseBy::automatic},
                    std::pair{std::string_view("zscore"), NormaliseBy::zscore},
                    std::pair{std::string_view("ct"), NormaliseBy::ct},
                    std::pair{std::string_view("ct2"), NormaliseBy::ct2},
                    std::pair{std::string_view("fixed"), NormaliseBy::fixed},
                    std::pair{std::string_view("none"), NormaliseBy::none}};
}

enum class NonzeroMask : uint8_t { automatic, always, never };
constexpr auto enum_names(NonzeroMask) {
  return std::array{std::pair{std::string_view("auto"), NonzeroMask::automatic},
                    std::pair{std::string_view("always"), NonzeroMask::always},
                    std::pair{std::string_view("never"), NonzeroMask::never}};
}

// What a user says.
struct PreprocessConfig {
  bool crop = true;      // to the box of non-zero voxels
  bool resample = true;  // to one spacing
  std::vector<double>
      spacing;  // z, y, x in mm; empty: the training set's (Fingerprint::target_spacing)
  // y, x (or z, y, x): every case is resized to this grid whatever its spacing, as the 2-d papers
  // do (TransUNet's protocol, which LeViT-UNet and DAE-Former follow, and the skin sets: 224, 224).
  // Empty: cases keep their size, and the network sees patches.
  std::vector<int64_t> size;
  // auto: ct for channels called CT, fixed with 0 and 255 for rgb_to_0_1 (nnU-Net v2's names), else
  // zscore; RGB photographs too get a z-score, per image and channel.
  NormaliseBy normalise = NormaliseBy::automatic;
  std::vector<double> mean, sd;  // of normalise = "fixed": one for all channels, or one a channel
  NonzeroMask nonzero_mask = NonzeroMask::automatic;  // auto: when cropping removes over a quarter
  int64_t image_order = 3;                            // spline degrees: 0, 1 or 3
  int64_t label_order = 1;
  int64_t score_order = 1;  // of class scores on their way back

  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("crop", s.crop);
    v("resample", s.resample);
    v("spacing", s.spacing);
    v("size", s.size);
    v("normalise", s.normalise);
    v("mean", s.mean);
    v("sd", s.sd);
    v("nonzero_mask", s.nonzero_mask);
    v("image_order", s.image_order);
    v("label_order", s.label_order);
    v("score_order", s.score_order);
  }
};

// The same with every "auto" resolved: all that is needed for a case never seen before. A run keeps
// it.
struct PreprocessPlan {
  bool crop = true;
  std::optional<Spacing3> spacing;  // z, y, x; none: no resampling to a spacing
  std::optional<Size3> size;        // z, y, x, z = 0: as many slices as there are; none: by spacing
  std::vector<ChannelNormalisation> channels;
  int image_order = 3, label_order = 1, score_order = 1;
};

// The training cases are read only when the config leaves something to them.
PreprocessPlan make_plan(const PreprocessConfig& config, const Dataset& dataset,
                         const std::filesystem::path& cache_folder = {});
PreprocessPlan make_plan(const PreprocessConfig& config, const Dataset& dataset,
                         const Fingerprint& fingerprint);

void to_json(nlohmann::json& out, const PreprocessPlan& plan);
void from_json(const nlohmann::json& in, PreprocessPlan& plan);

// How a preprocessed grid lies in its file. All z, y, x.
struct CaseGeometry {
  Size3 file_size{};
  Spacing3 file_spacing{};
  Box3 box;            // what was kept, in file voxels
  Spacing3 spacing{};  // of the preprocessed grid
  Size3 size{};        // of the preprocessed grid
};
void to_json(nlohmann::json& out, const CaseGeometry& geometry);
void from_json(const nlohmann::json& in, CaseGeometry& geometry);

struct Prepared {
  Tensor image;  // (D, H, W, C) f32
  Tensor label;  // (D, H, W) u8 class indices; undefined when there are none
  CaseGeometry geometry;
};
// Takes voxels (z, y, x, C) f32 and, optionally, class indices (z, y, x) i32; moved in, they are
// freed on the way.
Prepared preprocess(Volume volume, Tensor labels, const PreprocessPlan& plan);

// How a case is resampled with splines of degree `order`, the same in both directions: nnU-Net asks
// the file's spacing first, then that of the network.
ResampleRule rule_for(const CaseGeometry& geometry, int order);

}  // namespace voxlab
