// Learning rates as pure functions of the step.
#pragma once

#include <array>
#include <cstdint>

#include "runtime/core/visit.h"

namespace voxlab::train {

// constant.
// poly: lr (1 - step / total)^power, nnU-Net's rule (its step is an epoch); 0 from total on.
// poly_delayed: DAE-Former's, which sets the rate after the step with the counter before its increment,
//   so that the first two steps have the full rate.
// cosine: from lr down to end_lr over total steps (PyTorch's CosineAnnealingLR), after a linear warm-up from
//   warmup_factor * lr.
// warmup_cosine: MONAI's WarmupCosineSchedule: lr times half a cosine over the steps after the warm-up,
//   never below end_lr; beyond total it rises again.
enum class ScheduleKind : uint8_t { constant, poly, poly_delayed, cosine, warmup_cosine };

constexpr auto enum_names(ScheduleKind) {
  return std::array{std::pair{std::string_view("constant"), ScheduleKind::constant},
                    std::pair{std::string_view("poly"), ScheduleKind::poly},
                    std::pair{std::string_view("poly_delayed"), ScheduleKind::poly_delayed},
                    std::pair{std::string_view("cosine"), ScheduleKind::cosine},
                    std::pair{std::string_view("warmup_cosine"), ScheduleKind::warmup_cosine}};
}

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::poly;
  int64_t total = 1000;      // steps
  int64_t warmup = 0;        // of them, linear from warmup_factor * lr to lr; cosine kinds only
  double warmup_factor = 0;
  double end_lr = 0;         // cosine kinds only
  double power = 0.9;        // poly kinds only
  double cycles = 0.5;       // warmup_cosine: cosine periods after the warm-up
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("kind", s.kind); v("total", s.total); v("warmup", s.warmup); v("warmup_factor", s.warmup_factor);
    v("end_lr", s.end_lr); v("power", s.power); v("cycles", s.cycles);
  }
};

// The rate used at `step` = 0, 1, ... Error on a config that makes no sense.
double learning_rate(const ScheduleConfig& config, double lr, int64_t step);

}  // namespace voxlab::train
