#include "experiments/data/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

// nnU-Net v2 keeps as many of a class's voxels as candidates for a patch's centre.
constexpr int64_t most_candidates = 10000;

// Keeps data numbers apart from the parameters' and dropout's, which use the plain seed.
constexpr uint64_t seed_mask = 0x64617461'70617463u;

// Places that a patch may begin at along one axis, [low, high]. A short axis has one: it is
// centred.
std::array<int64_t, 2> begin_range(int64_t size, int64_t patch) {
  if (size <= patch) return {-((patch - size) / 2), -((patch - size) / 2)};
  return {0, size - patch};
}

}  // namespace

PatchSampler::PatchSampler(std::vector<Case> cases, SamplerOptions options)
    : cases_(std::move(cases)), options_(std::move(options)) {
  constexpr std::string_view where = "sampler";
  if (cases_.empty()) fail(where, "no training cases");
  if (options_.batch < 1)
    fail(where, "batch must be at least 1, got " + std::to_string(options_.batch));
  if (!(options_.foreground >= 0 && options_.foreground <= 1))
    fail(where, "foreground must lie in [0, 1], got " + std::to_string(options_.foreground));
  if (options_.patch.size() != 2 && options_.patch.size() != 3)
    fail(where, "a patch has two or three axes, got " + std::to_string(options_.patch.size()));
  for (int64_t size : options_.patch)
    if (size < 1) fail(where, "the patch has a size of " + std::to_string(size));
  patch_[0] = 1;
  std::copy(options_.patch.rbegin(), options_.patch.rend(), patch_.rbegin());
  validate(options_.augment);
  for (const Case& each : cases_) {
    if (!each.label) fail(where, "case " + each.id + " has no label");
    if (each.image.size(3) != cases_[0].image.size(3))
      fail(where, "case " + each.id + " has " + std::to_string(each.image.size(3)) +
                      " channels, case " + cases_[0].id + " " +
                      std::to_string(cases_[0].image.size(3)));
    if (each.label.numel() >= int64_t{1} << 32)
      fail(where, "case " + each.id + " has more than 2^32 voxels");
    const auto* label = each.label.data<uint8_t>();
    std::array<int64_t, 256> count{}, seen{};
    for (int64_t v = 0; v < each.label.numel(); ++v) ++count[label[v]];
    std::vector<Foreground> classes;
    std::array<size_t, 256> index{};
    for (size_t c = 1; c < 256; ++c)
      if (count[c] > 0) {
        index[c] = classes.size();
        classes.push_back({static_cast<int32_t>(c), {}});
      }
    for (int64_t v = 0; v < each.label.numel(); ++v) {
      const uint8_t c = label[v];
      const int64_t every = (count[c] + most_candidates - 1) / most_candidates;
      if (c != 0 && seen[c]++ % every == 0)
        classes[index[c]].voxels.push_back(static_cast<uint32_t>(v));
    }
    foreground_.push_back(std::move(classes));
  }
}

Size3 PatchSampler::begin_around(const Case& from, const Size3& voxel) const {
  Size3 begin;
  for (size_t a = 0; a < 3; ++a) {
    const auto [low, high] = begin_range(from.image.size(static_cast<int>(a)), patch_[a]);
    begin[a] = std::clamp(voxel[a] - patch_[a] / 2, low, high);
  }
  return begin;
}

PatchSampler::Place PatchSampler::place(int64_t n, Draws& draws) const {
  Place place;
  place.which = static_cast<size_t>(draws.below(static_cast<int64_t>(cases_.size())));
  const Case& from = cases_[place.which];
  const auto& classes = foreground_[place.which];
  // The share is met exactly, not by chance: the count of forced samples among the first n is
  // floor(n f).
  const auto f = options_.foreground + 1e-12;
  const bool forced =
      std::floor(static_cast<double>(n + 1) * f) > std::floor(static_cast<double>(n) * f);
  if (forced && !classes.empty()) {
    const Foreground& of =
        classes[static_cast<size_t>(draws.below(static_cast<int64_t>(classes.size())))];
    const int64_t v =
        of.voxels[static_cast<size_t>(draws.below(static_cast<int64_t>(of.voxels.size())))];
    const int64_t row = from.label.size(2), plane = row * from.label.size(1);
    place.begin = begin_around(from, {v / plane, v / row % from.label.size(1), v % row});
    place.centred_on = of.label;
    return place;
  }
  for (size_t a = 0; a < 3; ++a) {
    const auto [low, high] = begin_range(from.image.size(static_cast<int>(a)), patch_[a]);
    place.begin[a] = low + draws.below(high - low + 1);
  }
  return place;
}

Batch PatchSampler::batch(int64_t step) const {
  const int64_t channels = cases_[0].image.size(3), voxels = patch_[0] * patch_[1] * patch_[2];
  Shape shape{options_.batch};
  for (int64_t size : options_.patch) shape.push_back(size);
  Batch batch{.step = step, .label = Tensor::empty(shape, DType::i32)};
  shape.push_back(channels);
  batch.image = Tensor::empty(shape, DType::f32);
  for (int64_t i = 0; i < options_.batch; ++i) {
    Draws draws(options_.seed ^ seed_mask, static_cast<uint32_t>(i), static_cast<uint32_t>(step));
    const Place at = place(step * options_.batch + i, draws);
    const Case& from = cases_[at.which];
    const PatchMap map =
        draw_map(options_.augment, from.spacing, draws, options_.patch.size() == 2);
    const std::span image(batch.image.data<float>() + i * voxels * channels,
                          static_cast<size_t>(voxels * channels));
    read_patch(from.image, from.label, at.begin, patch_, map, image,
               {batch.label.data<int32_t>() + i * voxels, static_cast<size_t>(voxels)});
    augment_intensity(options_.augment, image, channels, draws);
  }
  return batch;
}

}  // namespace voxlab
