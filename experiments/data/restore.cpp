// Planes of scores are resized in y and x as they come, then mixed along z.
#include "experiments/data/restore.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "runtime/core/error.h"
#include "runtime/core/parallel.h"

namespace voxlab {
namespace {

void check_plane(const char* where, const Tensor& plane, const Size3& size, int64_t got) {
  if (plane.rank() != 3 || plane.dtype() != DType::f32 || plane.size(0) != size[1] ||
      plane.size(1) != size[2])
    fail(where, fmt::format("expected planes f32 ({}, {}, K), got {}", size[1], size[2],
                            plane.meta().to_string()));
  if (got >= size[0]) fail(where, fmt::format("expected {} planes, got more", size[0]));
}

// Number i of the planes (y, x, C) that `volume` (z, y, x, C) consists of; shares its memory.
Tensor plane_of(const Tensor& volume, int64_t i) {
  const Shape shape{volume.size(1), volume.size(2), volume.size(3)};
  const Strides& s = volume.strides();
  return Tensor::view(volume.storage(), {shape, volume.dtype(), volume.device()},
                      {s[1], s[2], s[3]}, volume.offset() + i * s[0]);
}

}  // namespace

PlaneResampler::PlaneResampler(const Size3& from, const Size3& to, const ResampleRule& rule,
                               std::function<void(const Tensor& plane)> use)
    : from_(from),
      to_(to),
      rule_(rule),
      along_(make_map(from[0], to[0], rule.separate_axis == 0 ? rule.order_across : rule.order)),
      use_(std::move(use)) {}

void PlaneResampler::add(const Tensor& plane) {
  check_plane("resampling of planes", plane, from_, got_);
  ++got_;
  if (from_ == to_) return use_(plane);
  const bool slices = rule_.separate_axis == 0;  // resized each on its own, whatever the order
  if (along_.order <= 1 && (slices || rule_.order <= 1)) return add_linear(plane);
  add_cubic(plane);
}

void PlaneResampler::add_linear(const Tensor& plane) {
  const int64_t channels = plane.size(2);
  Block block{.size = {1, from_[1], from_[2]}, .channels = channels, .values = {}};
  const Tensor dense = plane.contiguous() ? plane : plane.clone();
  const float* in = dense.data<float>();
  block.values.assign(in, in + dense.numel());
  resize_block(block, {1, to_[1], to_[2]}, rule_, scratch_);
  planes_.push_back(std::move(block.values));

  const int64_t taps = std::min(along_.tap_count(), from_[0]);
  for (; made_ < to_[0]; ++made_) {
    const Tap& tap = along_.taps[size_t(made_)];
    // Planes before its first are of no use to any that follows.
    while (got_ - static_cast<int64_t>(planes_.size()) < tap.first && !planes_.empty())
      planes_.pop_front();
    if (tap.first + taps > got_) return;
    Tensor mixed = Tensor::empty({to_[1], to_[2], channels}, DType::f32);
    float* out = mixed.data<float>();
    const auto first = size_t(tap.first - (got_ - static_cast<int64_t>(planes_.size())));
    parallel_for(mixed.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
      for (int64_t v = begin; v < end; ++v) {
        double sum = 0;
        for (int64_t t = 0; t < taps; ++t)
          sum += tap.weight[size_t(t)] * planes_[first + size_t(t)][size_t(v)];
        out[v] = static_cast<float>(sum);
      }
    });
    use_(mixed);
  }
}

void PlaneResampler::add_cubic(const Tensor& plane) {
  if (!whole_) whole_ = Tensor::empty({from_[0], from_[1], from_[2], plane.size(2)}, DType::f32);
  plane_of(whole_, got_ - 1).copy_from(plane);
  if (got_ < from_[0]) return;
  const Tensor result = resample_image(whole_, to_, rule_);
  whole_ = {};
  for (; made_ < to_[0]; ++made_) use_(plane_of(result, made_));
}

ClassRestorer::ClassRestorer(const CaseGeometry& g, int order, std::span<const uint8_t> over_half)
    : geometry_(g),
      over_half_(over_half.begin(), over_half.end()),
      resampler_(g.size, g.box.size, rule_for(g, order), [this](const Tensor& p) { write(p); }),
      classes_(Tensor::zeros({g.file_size[0], g.file_size[1], g.file_size[2]}, DType::u8)) {}

void ClassRestorer::add(const Tensor& scores) {
  check_plane("restoring classes", scores, geometry_.size, got_);
  ++got_;
  resampler_.add(scores);
}

void ClassRestorer::write(const Tensor& scores) {
  const Box3& box = geometry_.box;
  const Size3& file = geometry_.file_size;
  const Tensor dense = scores.contiguous() ? scores : scores.clone();
  const Tensor classes = classes_of(
      Tensor::view(dense.storage(), {{1, box.size[1], box.size[2], dense.size(2)}, DType::f32},
                   {dense.numel(), dense.strides()[0], dense.strides()[1], 1}, dense.offset()),
      over_half_);
  for (int64_t y = 0; y < box.size[1]; ++y)
    std::memcpy(classes_.data<uint8_t>() +
                    ((box.begin[0] + made_) * file[1] + box.begin[1] + y) * file[2] + box.begin[2],
                classes.data<uint8_t>() + y * box.size[2], static_cast<size_t>(box.size[2]));
  ++made_;
}

Tensor ClassRestorer::finish() const {
  if (got_ != geometry_.size[0])
    fail("restoring classes", fmt::format("expected {} planes, got {}", geometry_.size[0], got_));
  return classes_;
}

Tensor restore_classes(const Tensor& scores, const CaseGeometry& g, int order,
                       std::span<const uint8_t> over_half) {
  if (scores.rank() != 4 || scores.size(0) != g.size[0] || scores.size(1) != g.size[1] ||
      scores.size(2) != g.size[2])
    fail("restore_classes", fmt::format("expected ({}, {}, {}, K), got {}", g.size[0], g.size[1],
                                        g.size[2], scores.shape().to_string()));
  ClassRestorer restorer(g, order, over_half);
  for (int64_t z = 0; z < g.size[0]; ++z) restorer.add(plane_of(scores, z));
  return restorer.finish();
}

Tensor classes_of(const Tensor& scores, std::span<const uint8_t> over_half) {
  const int64_t channels = scores.size(3);
  if (channels > 256) fail("classes_of", fmt::format("{} classes, at most 256", channels));
  if (!over_half.empty() && static_cast<int64_t>(over_half.size()) != channels)
    fail("classes_of", fmt::format("{} regions for {} channels", over_half.size(), channels));
  Tensor classes = Tensor::empty({scores.size(0), scores.size(1), scores.size(2)}, DType::u8);
  const float* scores_of = scores.data<float>();
  uint8_t* to = classes.data<uint8_t>();
  parallel_for(classes.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t v = begin; v < end; ++v) {
      const float* score = scores_of + v * channels;
      if (over_half.empty()) {
        to[v] = static_cast<uint8_t>(std::max_element(score, score + channels) - score);
        continue;
      }
      to[v] = 0;
      for (size_t r = 0; r < over_half.size(); ++r)
        if (score[r] > 0.5F) to[v] = over_half[r];
    }
  });
  return classes;
}

}  // namespace voxlab
