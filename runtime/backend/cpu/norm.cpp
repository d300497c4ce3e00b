// Group (and so instance), batch and layer normalisation with their gradients. Group and batch norm
// work by column: moments of every column first, columns of a group joined in f64, then one pass
// that scales.
#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "runtime/backend/cpu/column_norm.h"

namespace voxlab::cpu {
namespace {

// The part of a gradient's rows from `row` on.
GradColumnsArgs rows_from(const GradColumnsArgs& args, const WideRows& wide, int64_t row, int64_t rows, int64_t width) {
  GradColumnsArgs part = args;
  part.x = moved(args.x, args.x_storage, row * wide.width);
  part.dy = moved(args.dy, args.dy_storage, row * wide.width);
  part.dx = moved(args.dx, args.dx_storage, row * wide.width);
  part.rows = rows;
  part.columns = width;
  return part;
}

// Per column: sum of dy and of dy (x - mean) rstd.
struct ColumnSums {
  std::vector<double> dy, dot;
};

// `count` sums of each column: run(first row, rows, values of one, where to add the first sum's; the others' lie `step` on).
template <class Run>
std::vector<std::vector<double>> column_sums(const WideRows& wide, int64_t columns, size_t count, const Run& run) {
  const auto width = static_cast<size_t>(wide.width), step = static_cast<size_t>(thread_count()) * width;
  std::vector<double> parts(count * step);
  parallel_pieces(wide.rows, grain_rows(wide.width), [&](int piece, int64_t begin, int64_t end) {
    run(begin, end - begin, wide.width, &parts[static_cast<size_t>(piece) * width], step);
  });
  if (wide.rest > 0) run(wide.rows, 1, wide.rest, parts.data(), step);
  std::vector<std::vector<double>> sums(count, std::vector<double>(static_cast<size_t>(columns)));
  for (size_t i = 0; i < parts.size(); ++i)  // a wide row is whole rows: i counts columns around
    sums[i / step][i % width % static_cast<size_t>(columns)] += parts[i];
  return sums;
}

ColumnSums gradient_sums(const WideRows& wide, int64_t columns, const GradColumnsArgs& args) {
  auto sums = column_sums(wide, columns, 2, [&](int64_t row, int64_t rows, int64_t width, double* to, size_t step) {
    GradColumnsArgs part = rows_from(args, wide, row, rows, width);
    part.total_dy = to;
    part.total_dot = to + step;
    active_loops().grad_columns(part);
  });
  return {std::move(sums[0]), std::move(sums[1])};
}

// dx = scale dy - (level + (x - mean) slope), level and slope by column; adds to dweight and dbias.
void follow_from_sums(const NormGeometry& g, Affine affine, const std::vector<double>& rstd, const ColumnSums& sums, ColumnValues& level,
                      ColumnValues& slope, double* dweight, double* dbias) {
  const auto count = static_cast<double>(g.count());
  for (int64_t group = 0; group < g.groups; ++group) {
    double total = 0, dot = 0;
    const double r = rstd[static_cast<size_t>(group)];
    for (int64_t c = group * g.channels; c < (group + 1) * g.channels; ++c) {
      const auto at = static_cast<size_t>(c);
      dbias[c] += sums.dy[at];
      dweight[c] += sums.dot[at];
      total += affine.weight_at(c) * sums.dy[at];
      dot += affine.weight_at(c) * sums.dot[at];
    }
    // dx = rstd (w dy - total / n - (x - mean) rstd dot / n)
    for (int64_t c = group * g.channels; c < (group + 1) * g.channels; ++c) {
      level.set(c, g.width(), r * total / count);
      slope.set(c, g.width(), r * r * dot / count);
    }
  }
}

// One sample; adds to dweight and dbias. With a slope other than 1, dy is that of an activation behind the norm.
void normalise_grad(const NormGeometry& g, GradColumnsArgs args, Affine affine, const float* mean,
                    const std::vector<double>& rstd, double* dweight, double* dbias, double activation_slope) {
  const int64_t width = g.width();
  const WideRows wide(g.positions, width);
  ColumnValues centre(wide), spread(wide), scale(wide), level(wide), slope(wide), gate_shift(wide);
  for (int64_t c = 0; c < width; ++c) {
    scale.set(c, width, rstd[static_cast<size_t>(c / g.channels)] * affine.weight_at(c));
    gate_shift.set(c, width, affine.bias_at(c));
    centre.set(c, width, mean[c / g.channels]);
    spread.set(c, width, rstd[static_cast<size_t>(c / g.channels)]);
  }
  args.mean = centre.v.data();
  args.scale = spread.v.data();
  if (activation_slope != 1) {
    args.gate_scale = scale.v.data();
    args.gate_shift = gate_shift.v.data();
    args.slope = static_cast<float>(activation_slope);
  }
  follow_from_sums(g, affine, rstd, gradient_sums(wide, width, args), level, slope, dweight, dbias);
  args.scale = scale.v.data();
  args.a = level.v.data();
  args.b = slope.v.data();
  const auto apply = active_loops().grad_apply_columns;
  for_wide_rows(wide, [&](int64_t row, int64_t rows, int64_t values) { apply(rows_from(args, wide, row, rows, values)); });
}

// One of two norms that meet in a sum, of one sample.
struct NormOfSum {
  Affine affine;
  const float* mean;
  std::vector<double> rstd;
  double *dweight, *dbias;
};

void normalise_grad_sum(const NormGeometry& g, GradSumArgs args, const std::array<NormOfSum, 2>& norms) {
  const int64_t width = g.width();
  const WideRows wide(g.positions, width);
  struct Columns {
    explicit Columns(const WideRows& wide) : centre(wide), scale(wide), level(wide), slope(wide) {}
    ColumnValues centre, scale, level, slope;
  };
  std::array<Columns, 2> columns{Columns(wide), Columns(wide)};
  ColumnValues gate_shift(wide);
  for (int64_t c = 0; c < width; ++c) {
    gate_shift.set(c, width, norms[0].affine.bias_at(c) + norms[1].affine.bias_at(c));
    for (size_t i = 0; i < 2; ++i) {
      columns[i].centre.set(c, width, norms[i].mean[c / g.channels]);
      columns[i].scale.set(c, width, norms[i].rstd[static_cast<size_t>(c / g.channels)] * norms[i].affine.weight_at(c));
    }
  }
  args.gate_shift = gate_shift.v.data();
  for (size_t i = 0; i < 2; ++i) {
    args.norm[i].mean = columns[i].centre.v.data();
    args.norm[i].scale = columns[i].scale.v.data();
  }
  const auto part_of = [&](int64_t row, int64_t rows, int64_t values) {
    GradSumArgs part = args;
    part.dy = moved(args.dy, args.dy_storage, row * wide.width);
    for (GradSumArgs::Norm& n : part.norm) {
      n.x = moved(n.x, n.x_storage, row * wide.width);
      n.dx = moved(n.dx, n.dx_storage, row * wide.width);
    }
    part.rows = rows;
    part.columns = values;
    return part;
  };
  const auto sums = column_sums(wide, width, 3, [&](int64_t row, int64_t rows, int64_t values, double* to, size_t step) {
    GradSumArgs part = part_of(row, rows, values);
    part.total_dy = to;
    part.norm[0].total_dot = to + step;
    part.norm[1].total_dot = to + 2 * step;
    active_loops().grad_sum_columns(part);
  });
  for (size_t i = 0; i < 2; ++i) {
    ColumnSums of_norm{sums[0], sums[1 + i]};
    for (int64_t c = 0; c < width; ++c) of_norm.dot[static_cast<size_t>(c)] *= norms[i].rstd[static_cast<size_t>(c / g.channels)];
    follow_from_sums(g, norms[i].affine, norms[i].rstd, of_norm, columns[i].level, columns[i].slope, norms[i].dweight, norms[i].dbias);
    args.norm[i].a = columns[i].level.v.data();
    args.norm[i].b = columns[i].slope.v.data();
  }
  for_wide_rows(wide, [&](int64_t row, int64_t rows, int64_t values) { active_loops().grad_sum_apply_columns(part_of(row, rows, values)); });
}

void store(const std::vector<double>& from, std::byte* to) {
  for (size_t i = 0; i < from.size(); ++i) floats(to)[i] = static_cast<float>(from[i]);
}

// By column of batch b, whose `samples` share their statistics: from what is known of each sample, or from x itself.
std::vector<Moments> batch_moments(const NormGeometry& g, int64_t b, int64_t samples, const Values& x, const float* known) {
  if (known == nullptr) return column_moments(x, g.positions, g.width());
  std::vector<Moments> moments;
  for (int64_t s = 0; s < samples; ++s) {
    const auto one = known_moments(known + 2 * (b * samples + s) * g.width(), g.positions / samples, g.width());
    if (s == 0) moments = one;
    for (size_t c = 0; s > 0 && c < one.size(); ++c) moments[c].join(one[c]);
  }
  return moments;
}

std::vector<double> rstd_of(const float* spread, int64_t groups, double eps, bool from_variance) {
  std::vector<double> rstd(spread, spread + groups);
  for (double& v : rstd)
    if (from_variance) v = 1 / std::sqrt(v + eps);
  return rstd;
}

// in: x, weight, bias, residual, moments (all but x optional): see NormActivation. `samples` share their statistics.
Kernel norm_kernel(std::string_view name, const NormGeometry& g, double eps, bool over_batch, int64_t samples, const Finish& finish,
                   Descs in, Descs out) {
  if (!loops_read(in, out, {0, 3})) return {};
  return {.name = std::string(name),
          .run = [=, x_dtype = in[0].dtype(), y_dtype = out[0].dtype(),
                  descs = std::vector<TensorDesc>(in.begin(), in.end())](Pointers data, Pointers to, std::byte*) {
            const Affine affine{optional(descs, data, 1), optional(descs, data, 2)};
            const float* known = optional(descs, data, 4);
            const bool added = descs.size() > 3 && descs[3].present;
            const int residual_storage = added ? storage_of(descs[3].dtype()) : 0;
            for (int64_t b = 0; b < g.batch; ++b) {
              const int64_t at = b * g.positions * g.width();
              const Values x = Values{data[0], x_dtype}.from(at);
              const Normaliser n = normaliser_of(g, eps, batch_moments(g, b, samples, x, known), affine, floats(to[1]) + b * g.groups,
                                                 floats(to[2]) + b * g.groups, over_batch);
              finish_wide_rows(WideRows(g.positions, g.width()),
                               {.x = x.data,
                                .residual = added ? moved(data[3], residual_storage, at) : nullptr,
                                .y = to[0] + at * size_of(y_dtype),
                                .x_storage = storage_of(x_dtype),
                                .residual_storage = residual_storage,
                                .y_storage = storage_of(y_dtype),
                                .value = n.columns(),
                                .activation = static_cast<int>(finish.activation),
                                .slope = static_cast<float>(finish.slope)});
            }
          },
          .narrows = true};
}

// in: dy, x, weight, [bias, behind which stands an activation of this slope,] mean, spread.
Kernel norm_grad_kernel(std::string_view op, const NormGeometry& g, double eps, bool from_variance,
                        Descs in, Descs out, double activation_slope = 1) {
  if (!loops_read(in, out, {0, 1})) return {};
  return {.name = loop_name(op),
          .run = [=, dx_storage = storage_of(out[0].dtype()), descs = std::vector<TensorDesc>(in.begin(), in.end())](
                     Pointers data, Pointers to, std::byte*) {
            const size_t mean = descs.size() - 2;
            const int dy_storage = storage_of(descs[0].dtype()), x_storage = storage_of(descs[1].dtype());
            const Affine affine{optional(descs, data, 2), mean == 4 ? optional(descs, data, 3) : nullptr};
            std::vector<double> dweight(static_cast<size_t>(g.width())), dbias(dweight.size());
            for (int64_t n = 0; n < g.batch; ++n) {
              const int64_t at = n * g.positions * g.width();
              const std::vector<double> rstd = rstd_of(floats(data[mean + 1]) + n * g.groups, g.groups, eps, from_variance);
              normalise_grad(g,
                             {.x = moved(data[1], x_storage, at),
                              .dy = moved(data[0], dy_storage, at),
                              .dx = moved(to[0], dx_storage, at),
                              .x_storage = x_storage,
                              .dy_storage = dy_storage,
                              .dx_storage = dx_storage},
                             affine, floats(data[mean]) + n * g.groups, rstd, dweight.data(), dbias.data(), activation_slope);
            }
            store(dweight, to[1]);
            store(dbias, to[2]);
          },
          .narrows = true};
}

}  // namespace

Kernel prepare(const GroupNorm::Attrs& a, Descs in, Descs out) {
  const NormGeometry g = GroupNorm::geometry(a, in[0].shape());
  return norm_kernel(loop_name(g.channels == 1 ? "instance_norm" : GroupNorm::name), g, a.eps, false, 1, {}, in, out);
}
Kernel prepare(const GroupNormGrad::Attrs& a, Descs in, Descs out) {
  const NormGeometry g = GroupNorm::geometry(a, in[1].shape());
  return norm_grad_kernel(g.channels == 1 ? "instance_norm_grad" : GroupNormGrad::name, g, a.eps, false, in, out);
}
Kernel prepare(const FusedGroupNorm::Attrs& a, Descs in, Descs out) {
  const TensorDesc none{.present = false};
  const TensorDesc residual_desc = in.size() > 3 ? in[3] : none;
  if (!loops_read(in, out, {0, 3})) return {};
  const int x_storage = storage_of(in[0].dtype()), y_storage = storage_of(out[0].dtype());
  const int residual_storage = residual_desc.present ? storage_of(residual_desc.dtype()) : 0;
  const NormGeometry g = GroupNorm::geometry(a, in[0].shape());
  return {.name = loop_name(g.channels == 1 ? "fused_instance_norm" : FusedGroupNorm::name),
          .run = [=, x_dtype = in[0].dtype(), y_dtype = out[0].dtype(), descs = std::vector<TensorDesc>(in.begin(), in.end())](
                     Pointers data, Pointers to, std::byte*) {
            const Affine affine{optional(descs, data, 1), optional(descs, data, 2)};
            const Affine other{optional(descs, data, 4), optional(descs, data, 5)};
            for (int64_t sample = 0; sample < g.batch; ++sample) {
              const int64_t at = sample * g.positions * g.width();
              const Values x = Values{data[0], x_dtype}.from(at);
              const auto moments = [&](const Values& values, size_t known) {
                const float* given = optional(descs, data, known);
                return given == nullptr ? column_moments(values, g.positions, g.width())
                                        : known_moments(given + 2 * sample * g.width(), g.positions, g.width());
              };
              const Normaliser n = normaliser_of(g, a.eps, moments(x, 6), affine);
              FinishColumnsArgs args{.x = x.data,
                                     .y = to[0] + at * size_of(y_dtype),
                                     .x_storage = x_storage,
                                     .residual_storage = residual_storage,
                                     .y_storage = y_storage,
                                     .value = n.columns(),
                                     .activation = static_cast<int>(a.activation),
                                     .slope = static_cast<float>(a.slope)};
              std::optional<Normaliser> second;
              if (residual_desc.present) {
                const Values residual = Values{data[3], residual_desc.dtype()}.from(at);
                args.residual = residual.data;
                if (a.norm_residual) {
                  second = normaliser_of(g, a.eps, moments(residual, 7), other);
                  args.other = second->columns();
                }
              }
              finish_wide_rows(WideRows(g.positions, g.width()), args);
            }
          },
          .narrows = true};
}

Kernel prepare(const NormActivation::Attrs& a, Descs in, Descs out) {
  const NormGeometry g = NormActivation::geometry(a, in[0].shape());
  return norm_kernel(loop_name(NormActivation::name, a.over_batch ? "batch" : g.channels == 1 ? "instance" : "group"), g, a.eps,
                     a.over_batch, in[0].shape()[0] / g.batch, a, in, out);
}
Kernel prepare(const NormActivationGrad::Attrs& a, Descs in, Descs out) {
  const NormGeometry g = NormActivation::geometry(a, in[1].shape());
  return norm_grad_kernel(std::string(NormActivationGrad::name) + (a.over_batch ? ".batch" : g.channels == 1 ? ".instance" : ".group"), g,
                          a.eps, a.over_batch, in, out, NormActivationGrad::slope(a));
}

Kernel prepare(const NormSum::Attrs& a, Descs in, Descs out) {
  if (!loops_read(in, out, {0, 3})) return {};
  const NormGeometry g = NormActivation::geometry(a, in[0].shape());
  return {.name = loop_name(NormSum::name, a.over_batch ? "batch" : g.channels == 1 ? "instance" : "group"),
          .run = [=, samples = in[0].shape()[0] / g.batch, y_dtype = out[0].dtype(), descs = std::vector<TensorDesc>(in.begin(), in.end())](
                     Pointers data, Pointers to, std::byte*) {
            for (int64_t b = 0; b < g.batch; ++b) {
              const int64_t at = b * g.positions * g.width();
              const auto normaliser = [&](size_t norm) {
                const size_t x = 3 * norm;
                const Affine affine{optional(descs, data, x + 1), optional(descs, data, x + 2)};
                const auto moments = batch_moments(g, b, samples, Values{data[x], descs[x].dtype()}.from(at), optional(descs, data, 6 + norm));
                return normaliser_of(g, a.eps, moments, affine, floats(to[1 + 2 * norm]) + b * g.groups, floats(to[2 + 2 * norm]) + b * g.groups,
                                     a.over_batch);
              };
              const Normaliser first = normaliser(0), second = normaliser(1);
              finish_wide_rows(WideRows(g.positions, g.width()), {.x = Values{data[0], descs[0].dtype()}.from(at).data,
                                                                  .residual = Values{data[3], descs[3].dtype()}.from(at).data,
                                                                  .y = to[0] + at * size_of(y_dtype),
                                                                  .x_storage = storage_of(descs[0].dtype()),
                                                                  .residual_storage = storage_of(descs[3].dtype()),
                                                                  .y_storage = storage_of(y_dtype),
                                                                  .value = first.columns(),
                                                                  .other = second.columns(),
                                                                  .activation = static_cast<int>(a.activation),
                                                                  .slope = static_cast<float>(a.slope)});
            }
          },
          .narrows = true};
}

Kernel prepare(const NormSumGrad::Attrs& a, Descs in, Descs out) {
  if (!loops_read(in, out, {0, 1, 6}, {0, 3})) return {};
  const NormGeometry g = NormActivation::geometry(a, in[1].shape());
  return {.name = loop_name(NormSumGrad::name, a.over_batch ? "batch" : g.channels == 1 ? "instance" : "group"),
          .run = [=, in_descs = std::vector<TensorDesc>(in.begin(), in.end()), out_descs = std::vector<TensorDesc>(out.begin(), out.end())](
                     Pointers data, Pointers to, std::byte*) {
            std::array<std::vector<double>, 2> dweight, dbias;
            for (auto* sums : {&dweight, &dbias})
              for (std::vector<double>& of_norm : *sums) of_norm.resize(static_cast<size_t>(g.width()));
            for (int64_t n = 0; n < g.batch; ++n) {
              const int64_t at = n * g.positions * g.width();
              GradSumArgs args{};
              args.dy_storage = storage_of(in_descs[0].dtype());
              args.dy = moved(data[0], args.dy_storage, at);
              args.slope = static_cast<float>(NormActivationGrad::slope(a));
              std::array<NormOfSum, 2> norms;
              for (size_t i = 0; i < 2; ++i) {
                const size_t x = 1 + 5 * i;
                GradSumArgs::Norm& norm = args.norm[i];
                norm.x_storage = storage_of(in_descs[x].dtype());
                norm.dx_storage = storage_of(out_descs[3 * i].dtype());
                norm.x = moved(data[x], norm.x_storage, at);
                norm.dx = moved(to[3 * i], norm.dx_storage, at);
                norms[i] = {{optional(in_descs, data, x + 1), optional(in_descs, data, x + 2)},
                            floats(data[x + 3]) + n * g.groups,
                            rstd_of(floats(data[x + 4]) + n * g.groups, g.groups, a.eps, a.over_batch),
                            dweight[i].data(),
                            dbias[i].data()};
              }
              normalise_grad_sum(g, args, norms);
            }
            for (size_t i = 0; i < 2; ++i) {
              store(dweight[i], to[3 * i + 1]);
              store(dbias[i], to[3 * i + 2]);
            }
          },
          .narrows = true};
}

Kernel prepare(const BatchNorm::Attrs& a, Descs in, Descs out) {
  return norm_kernel(loop_name(BatchNorm::name), BatchNorm::geometry(a, in[0].shape()), a.eps, true, 1, {}, in, out);
}
Kernel prepare(const BatchNormGrad::Attrs& a, Descs in, Descs out) {
  return norm_grad_kernel(BatchNormGrad::name, BatchNorm::geometry(a, in[1].shape()), a.eps, true, in, out);
}

Kernel prepare(const BatchNormInference::Attrs& a, Descs in, Descs) {
  if (!all_f32(in)) return {};
  const NormGeometry g = BatchNorm::geometry(a, in[0].shape());
  return {.name = loop_name(BatchNormInference::name),
          .run = [g, eps = a.eps, descs = std::vector<TensorDesc>(in.begin(), in.end())](
                     Pointers data, Pointers out, std::byte*) {
            const Affine affine{optional(descs, data, 1), optional(descs, data, 2)};
            const WideRows wide(g.positions, g.width());
            Normaliser n(wide);
            for (int64_t c = 0; c < g.width(); ++c) {
              const double rstd = 1 / std::sqrt(static_cast<double>(floats(data[4])[c]) + eps);
              n.centre.set(c, g.width(), floats(data[3])[c]);
              n.scale.set(c, g.width(), rstd * affine.weight_at(c));
              n.shift.set(c, g.width(), affine.bias_at(c));
            }
            finish_wide_rows(wide, {.x = data[0], .y = out[0], .value = n.columns()});
          }};
}

namespace {

// in: x, weight, bias.
Kernel layer_norm_kernel(std::string_view op, const EpsAttrs& a, bool gelu, Descs in) {
  if (!all_f32(in)) return {};
  const NormGeometry g = LayerNorm::geometry(a, in[0].shape());
  return {.name = loop_name(op),
          .run = [g, gelu, eps = a.eps, descs = std::vector<TensorDesc>(in.begin(), in.end())](
                     Pointers data, Pointers out, std::byte*) {
            parallel_for(g.batch, grain_rows(g.channels), [&](int64_t begin, int64_t end) {
              active_loops().layer_norm[gelu]({.x = floats(data[0]) + begin * g.channels,
                                               .y = floats(out[0]) + begin * g.channels,
                                               .rows = end - begin,
                                               .columns = g.channels,
                                               .gamma = optional(descs, data, 1),
                                               .beta = optional(descs, data, 2),
                                               .mean = floats(out[1]) + begin,
                                               .rstd = floats(out[2]) + begin,
                                               .epsilon = eps});
            });
          }};
}

// in: dy, x, weight, [bias of a norm before a GELU,] mean, rstd.
Kernel layer_norm_grad_kernel(std::string_view op, const EpsAttrs& a, bool gelu, Descs in) {
  if (!all_f32(in)) return {};
  const NormGeometry g = LayerNorm::geometry(a, in[1].shape());
  return {.name = loop_name(op),
          .run = [g, gelu, descs = std::vector<TensorDesc>(in.begin(), in.end())](Pointers data, Pointers out, std::byte*) {
            const auto width = static_cast<size_t>(g.channels), threads = static_cast<size_t>(thread_count());
            const size_t statistics = descs.size() - 2;
            std::vector<double> dgamma(threads * width), dbeta(threads * width);
            std::vector<float> partial(threads * 2 * width);
            parallel_pieces(g.batch, grain_rows(g.channels), [&](int piece, int64_t begin, int64_t end) {
              const auto t = static_cast<size_t>(piece) * width;
              const int64_t at = begin * g.channels;
              active_loops().layer_norm_grad[gelu]({.x = floats(data[1]) + at,
                                                    .dy = floats(data[0]) + at,
                                                    .y = floats(out[0]) + at,
                                                    .rows = end - begin,
                                                    .columns = g.channels,
                                                    .gamma = optional(descs, data, 2),
                                                    .beta = gelu ? optional(descs, data, 3) : nullptr,
                                                    .mean = floats(data[statistics]) + begin,
                                                    .rstd = floats(data[statistics + 1]) + begin,
                                                    .dgamma = &dgamma[t],
                                                    .dbeta = &dbeta[t],
                                                    .partial = &partial[2 * t]});
            });
            for (size_t i = width; i < dgamma.size(); ++i) {
              dgamma[i % width] += dgamma[i];
              dbeta[i % width] += dbeta[i];
            }
            dgamma.resize(width);
            dbeta.resize(width);
            store(dgamma, out[1]);
            store(dbeta, out[2]);
          }};
}

}  // namespace

Kernel prepare(const LayerNorm::Attrs& a, Descs in, Descs) { return layer_norm_kernel(LayerNorm::name, a, false, in); }
Kernel prepare(const LayerNormGrad::Attrs& a, Descs in, Descs) { return layer_norm_grad_kernel(LayerNormGrad::name, a, false, in); }
Kernel prepare(const LayerNormGelu::Attrs& a, Descs in, Descs) { return layer_norm_kernel(LayerNormGelu::name, a, true, in); }
Kernel prepare(const LayerNormGeluGrad::Attrs& a, Descs in, Descs) {
  return layer_norm_grad_kernel(LayerNormGeluGrad::name, a, true, in);
}

}  // namespace voxlab::cpu
