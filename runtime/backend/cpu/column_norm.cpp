#include "runtime/backend/cpu/column_norm.h"

#include <cmath>

namespace voxlab::cpu {
namespace {

// Joins the moments of `rows` contiguous rows into one entry per column.
void add_moments(const Values& x, int64_t rows, int64_t columns, Moments* total) {
  const auto loop = active_loops().moments[storage_of(x.dtype)];
  const WideRows wide(rows, columns);
  std::vector<double> mean(static_cast<size_t>(wide.width)), m2(static_cast<size_t>(wide.width));
  const auto join = [&](int64_t width, int64_t count) {
    for (int64_t i = 0; i < width; ++i)
      total[i % columns].join(
          {static_cast<double>(count), mean[static_cast<size_t>(i)], m2[static_cast<size_t>(i)]});
  };
  loop(x.data, wide.rows, wide.width, 0, mean.data(), m2.data());
  join(wide.width, wide.rows);
  for (int64_t i = 0; i < wide.rest; ++i)
    total[i % columns].join({1, x.at(wide.rows * wide.width + i), 0});
}

}  // namespace

std::vector<Moments> column_moments(const Values& x, int64_t rows, int64_t columns) {
  const auto width = static_cast<size_t>(columns);
  std::vector<Moments> part(static_cast<size_t>(thread_count()) * width);
  parallel_pieces(rows, grain_rows(columns), [&](int piece, int64_t begin, int64_t end) {
    add_moments(x.from(begin * columns), end - begin, columns,
                &part[static_cast<size_t>(piece) * width]);
  });
  for (size_t i = width; i < part.size(); ++i) part[i % width].join(part[i]);
  part.resize(width);
  return part;
}

std::vector<Moments> known_moments(const float* mean_and_variance, int64_t rows, int64_t columns) {
  std::vector<Moments> moments;
  const auto count = static_cast<double>(rows);
  for (int64_t c = 0; c < columns; ++c)
    moments.push_back({count, mean_and_variance[2 * c], count * double{mean_and_variance[2 * c + 1]}});
  return moments;
}

Normaliser normaliser_of(const NormGeometry& g, double eps, const std::vector<Moments>& columns, Affine affine, float* mean,
                         float* spread, bool store_variance) {
  Normaliser n(WideRows(g.positions, g.width()));
  for (int64_t group = 0; group < g.groups; ++group) {
    Moments all;
    for (int64_t c = 0; c < g.channels; ++c)
      all.join(columns[static_cast<size_t>(group * g.channels + c)]);
    const double variance = std::max(0.0, all.m2 / all.count), rstd = 1 / std::sqrt(variance + eps);
    const auto middle = static_cast<float>(all.mean);
    if (mean != nullptr) mean[group] = middle;
    if (spread != nullptr) spread[group] = static_cast<float>(store_variance ? variance : rstd);
    const double rounding = all.mean - static_cast<double>(middle);  // made up for by the shift
    for (int64_t c = group * g.channels; c < (group + 1) * g.channels; ++c) {
      const double factor = rstd * affine.weight_at(c);
      n.centre.set(c, g.width(), middle);
      n.scale.set(c, g.width(), factor);
      n.shift.set(c, g.width(), affine.bias_at(c) - rounding * factor);
    }
  }
  return n;
}

void finish_wide_rows(const WideRows& wide, const FinishColumnsArgs& args) {
  for_wide_rows(wide, [&](int64_t row, int64_t rows, int64_t width) {
    FinishColumnsArgs part = args;
    part.x = moved(args.x, args.x_storage, row * wide.width);
    part.residual = moved(args.residual, args.residual_storage, row * wide.width);
    part.y = moved(args.y, args.y_storage, row * wide.width);
    part.rows = rows;
    part.columns = width;
    active_loops().finish_columns(part);
  });
}

}  // namespace voxlab::cpu
