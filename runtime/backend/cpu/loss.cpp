// Losses on labels, and the class sums of soft Dice. Labels are checked before any loop indexes by
// them.
#include "runtime/backend/cpu/labels.h"

namespace voxlab::cpu {
namespace {

int32_t* ints(std::byte* p) { return reinterpret_cast<int32_t*>(p); }

bool is_f32_with_labels(const TensorDesc& values, const TensorDesc& labels) {
  return values.dtype() == DType::f32 && labels.dtype() == DType::i32;
}

struct CrossEntropyCall {
  int64_t rows, classes, ignore;
  bool weighted;
};

CrossEntropyCall cross_entropy_call(const IgnoreAttrs& a, const TensorDesc& logits,
                                    const TensorDesc& labels, Descs in, size_t weight) {
  return {labels.numel(), logits.shape()[-1], a.ignore_index,
          in.size() > weight && in[weight].present};
}

// Rows [begin, end) of a call.
LossArgs rows_of(const CrossEntropyCall& c, const float* x, const int32_t* labels,
                 const float* weight, int64_t begin, int64_t end) {
  return {.x = x + begin * c.classes,
          .labels = labels + begin,
          .weight = weight,
          .rows = end - begin,
          .classes = c.classes,
          .ignore = narrow_ignore(c.ignore)};
}

// p (N, positions, K) with class indices (N, positions) or 0/1 channels of the same shape.
struct ClassSumsCall {
  int64_t batch, positions, classes, ignore;
  bool channels, squared;
};

ClassSumsCall class_sums_call(const ClassSumsAttrs& a, const TensorDesc& p,
                              const TensorDesc& labels) {
  const int64_t batch = p.shape()[0], classes = p.shape()[-1];
  return {batch,
          p.numel() / std::max<int64_t>(1, batch * classes),
          classes,
          a.ignore_index,
          labels.shape() == p.shape(),
          a.squared};
}

// Adds positions [begin, end) of one sample to `sums`: K true positives, K of p or p^2, K of t.
void add_class_sums(const ClassSumsCall& c, const float* p, const int32_t* labels, int64_t begin,
                    int64_t end, double* sums) {
  const int64_t k = c.classes;
  const int kind = static_cast<int>(c.squared ? ReduceKind::sum_squares : ReduceKind::sum);
  if (c.channels) {
    for (int64_t i = begin * k; i < end * k; ++i) {
      const int64_t at = i % k;
      if (labels[i] == 0) continue;
      sums[at] += p[i];
      sums[2 * k + at] += 1;
    }
    add_columns(kind, 0, p + begin * k, end - begin, k, sums + k);
    return;
  }
  int64_t run = begin;  // positions from here on count and are not in the second sum yet
  for (int64_t i = begin; i <= end; ++i) {
    const bool counts = i < end && labels[i] != c.ignore;
    if (counts) {
      const int64_t label = checked_class(ClassSums::name, labels[i], k);
      sums[label] += p[i * k + label];
      sums[2 * k + label] += 1;
      continue;
    }
    if (i > run) add_columns(kind, 0, p + run * k, i - run, k, sums + k);
    run = i + 1;
  }
}

void class_sums(const ClassSumsCall& c, const float* p, const int32_t* labels, Pointers out) {
  const auto width = static_cast<size_t>(3 * c.classes),
             threads = static_cast<size_t>(thread_count());
  const int64_t label_width = c.channels ? c.classes : 1;
  for (int64_t n = 0; n < c.batch; ++n) {
    std::vector<double> part(threads * width);
    parallel_pieces(c.positions, grain_rows(c.classes), [&](int piece, int64_t begin, int64_t end) {
      add_class_sums(c, p + n * c.positions * c.classes, labels + n * c.positions * label_width,
                     begin, end, &part[static_cast<size_t>(piece) * width]);
    });
    for (size_t i = 0; i < width; ++i) {
      double total = 0;
      for (size_t t = 0; t < threads; ++t) total += part[t * width + i];
      const int64_t at = static_cast<int64_t>(i);
      floats(out[i / static_cast<size_t>(c.classes)])[n * c.classes + at % c.classes] =
          static_cast<float>(total);
    }
  }
}

// One position: dp = d_true t + d_all (1 or 2 p).
void class_sums_grad_row(const ClassSumsCall& c, const float* d_true, const float* d_all,
                         const float* p, const int32_t* labels, float* dp) {
  const int64_t k = c.classes;
  if (!c.channels && labels[0] == c.ignore) {
    std::fill(dp, dp + k, 0.0F);
    return;
  }
  if (c.squared) {
    for (int64_t i = 0; i < k; ++i) dp[i] = 2 * p[i] * d_all[i];
  } else {
    for (int64_t i = 0; i < k; ++i) dp[i] = d_all[i];
  }
  if (c.channels) {
    for (int64_t i = 0; i < k; ++i) dp[i] += labels[i] != 0 ? d_true[i] : 0.0F;
  } else {
    const int64_t label = checked_class(ClassSumsGrad::name, labels[0], k);
    dp[label] += d_true[label];
  }
}

}  // namespace

Kernel prepare(const Membership::Attrs& a, Descs in, Descs) {
  if (in[0].dtype() != DType::i32) return {};
  return {.name = "cpu.membership",
          .run = [regions = a.regions, n = in[0].numel()](Pointers x, Pointers y, std::byte*) {
            const auto width = static_cast<int64_t>(regions.size());
            parallel_for(n, grain_rows(4 * width), [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i)
                for (int64_t r = 0; r < width; ++r) {
                  const auto& listed = regions[static_cast<size_t>(r)];
                  const auto found =
                      std::find(listed.begin(), listed.end(), int64_t{ints(x[0])[i]});
                  ints(y[0])[i * width + r] = found != listed.end() ? 1 : 0;
                }
            });
          }};
}

Kernel prepare(const CrossEntropy::Attrs& a, Descs in, Descs) {
  if (!is_f32_with_labels(in[0], in[1])) return {};
  const CrossEntropyCall c = cross_entropy_call(a, in[0], in[1], in, 2);
  return {.name = loop_name(CrossEntropy::name),
          .run = [c](Pointers data, Pointers out, std::byte*) {
            const float* weight = c.weighted ? floats(data[2]) : nullptr;
            const int32_t* labels = ints(data[1]);
            const double total =
                total_weight(CrossEntropy::name, labels, c.rows, c.classes, c.ignore, weight);
            const double loss = sum_pieces(c.rows, c.classes, [&](int64_t begin, int64_t end) {
              return active_loops().cross_entropy(
                  rows_of(c, floats(data[0]), labels, weight, begin, end));
            });
            *floats(out[0]) = static_cast<float>(loss / total);
          }};
}

Kernel prepare(const CrossEntropyGrad::Attrs& a, Descs in, Descs) {
  if (!is_f32_with_labels(in[1], in[2])) return {};
  const CrossEntropyCall c = cross_entropy_call(a, in[1], in[2], in, 3);
  return {.name = loop_name(CrossEntropyGrad::name),
          .run = [c](Pointers data, Pointers out, std::byte*) {
            const float* weight = c.weighted ? floats(data[3]) : nullptr;
            const int32_t* labels = ints(data[2]);
            const double total =
                total_weight(CrossEntropyGrad::name, labels, c.rows, c.classes, c.ignore, weight);
            parallel_for(c.rows, grain_rows(c.classes), [&](int64_t begin, int64_t end) {
              LossArgs args = rows_of(c, floats(data[1]), labels, weight, begin, end);
              args.y = floats(out[0]) + begin * c.classes;
              args.scale = static_cast<float>(*floats(data[0]) / total);
              active_loops().cross_entropy_grad(args);
            });
          }};
}

Kernel prepare(const BinaryCrossEntropy::Attrs&, Descs in, Descs) {
  if (!is_f32_with_labels(in[0], in[1])) return {};
  return {
      .name = loop_name(BinaryCrossEntropy::name),
      .run = [n = in[0].numel()](Pointers data, Pointers out, std::byte*) {
        const double loss = sum_pieces(n, 1, [&](int64_t begin, int64_t end) {
          return active_loops().binary_cross_entropy(
              {.x = floats(data[0]) + begin, .labels = ints(data[1]) + begin, .rows = end - begin});
        });
        *floats(out[0]) = static_cast<float>(loss / static_cast<double>(n));
      }};
}

Kernel prepare(const BinaryCrossEntropyGrad::Attrs&, Descs in, Descs) {
  if (!is_f32_with_labels(in[1], in[2])) return {};
  return {.name = loop_name(BinaryCrossEntropyGrad::name),
          .run = [n = in[1].numel()](Pointers data, Pointers out, std::byte*) {
            const auto scale = static_cast<float>(*floats(data[0]) / static_cast<double>(n));
            parallel_for(n, grain_elements, [&](int64_t begin, int64_t end) {
              active_loops().binary_cross_entropy_grad({.x = floats(data[1]) + begin,
                                                        .labels = ints(data[2]) + begin,
                                                        .y = floats(out[0]) + begin,
                                                        .rows = end - begin,
                                                        .scale = scale});
            });
          }};
}

Kernel prepare(const ClassSums::Attrs& a, Descs in, Descs) {
  if (!is_f32_with_labels(in[0], in[1])) return {};
  return {.name = loop_name(ClassSums::name),
          .run = [c = class_sums_call(a, in[0], in[1])](Pointers data, Pointers out, std::byte*) {
            class_sums(c, floats(data[0]), ints(data[1]), out);
          }};
}

Kernel prepare(const ClassSumsGrad::Attrs& a, Descs in, Descs) {
  if (!is_f32_with_labels(in[2], in[3])) return {};
  return {.name = "cpu.class_sums_grad",
          .run = [c = class_sums_call(a, in[2], in[3])](Pointers data, Pointers out, std::byte*) {
            const int64_t k = c.classes, label_width = c.channels ? k : 1;
            parallel_for(c.batch * c.positions, grain_rows(k), [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) {
                const int64_t sample = i / c.positions * k;
                class_sums_grad_row(c, floats(data[0]) + sample, floats(data[1]) + sample,
                                    floats(data[2]) + i * k, ints(data[3]) + i * label_width,
                                    floats(out[0]) + i * k);
              }
            });
          }};
}

}  // namespace voxlab::cpu
