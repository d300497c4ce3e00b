#include "runtime/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace voxlab::train {
namespace {

double poly(const ScheduleConfig& c, double lr, int64_t step) {
  const double left = 1 - static_cast<double>(step) / static_cast<double>(c.total);
  return left > 0 ? lr * std::pow(left, c.power) : 0;
}

// Share of the steps after the warm-up that are over.
double progress(const ScheduleConfig& c, int64_t step) {
  return static_cast<double>(step - c.warmup) / static_cast<double>(std::max<int64_t>(1, c.total - c.warmup));
}

}  // namespace

double learning_rate(const ScheduleConfig& c, double lr, int64_t step) {
  constexpr std::string_view where = "schedule";
  if (c.total < 1) fail(where, "total must be at least 1, got " + std::to_string(c.total));
  if (c.warmup < 0 || c.warmup > c.total)
    fail(where, "warmup must be in [0, total], got " + std::to_string(c.warmup) + " of " + std::to_string(c.total));
  if (step < 0) fail(where, "negative step " + std::to_string(step));
  const bool cosine = c.kind == ScheduleKind::cosine || c.kind == ScheduleKind::warmup_cosine;
  if (cosine && step < c.warmup) {
    const double share = static_cast<double>(step) / static_cast<double>(c.warmup);
    return lr * (c.warmup_factor + (1 - c.warmup_factor) * share);
  }
  switch (c.kind) {
    case ScheduleKind::constant: return lr;
    case ScheduleKind::poly: return poly(c, lr, step);
    case ScheduleKind::poly_delayed: return poly(c, lr, std::max<int64_t>(0, step - 1));
    case ScheduleKind::cosine: {
      const double turn = std::numbers::pi * std::min(1.0, progress(c, step));
      return c.end_lr + (lr - c.end_lr) * 0.5 * (1 + std::cos(turn));
    }
    case ScheduleKind::warmup_cosine: {
      const double turn = 2 * std::numbers::pi * c.cycles * progress(c, step);
      return std::max(c.end_lr, lr * std::max(0.0, 0.5 * (1 + std::cos(turn))));
    }
  }
  return lr;
}

}  // namespace voxlab::train
