// Dropout, and rows of a table by index.
#include <cmath>
#include <cstring>

#include "runtime/backend/cpu/driver.h"

namespace voxlab::cpu {
namespace {

template <class T>
T kept(T x, float factor) {
  return T(static_cast<float>(x) * factor);
}

// Rows of `channels` values whose factors repeat; one factor for all when there is one.
template <class T>
void drop_rows(const std::vector<float>& factors, const T* x, T* y, int64_t n) {
  const auto channels = static_cast<int64_t>(factors.size());
  for (int64_t row = 0; row < n; row += channels)
    for (int64_t c = 0; c < channels; ++c) {
      const float factor = factors[static_cast<size_t>(c)];
      y[row + c] = factor == 0 ? T{} : kept(x[row + c], factor);
    }
}

template <class T>
void run_dropout(const Dropout::Attrs& a, uint32_t step, const Shape& shape, const T* x, T* y) {
  const Philox random(a.seed, a.stream, step);
  const DropRule rule = drop_rule(a, step);
  const int64_t n = shape.numel();
  if (a.unit == DropUnit::element) {
    const auto loop = active_loops().drop[std::is_same_v<T, bfloat16> ? 1 : 0];
    // Whole blocks to every thread.
    parallel_for(ceil_divide(n, drop_block), grain_elements / 32, [&](int64_t begin, int64_t end) {
      loop({.x = x,
            .y = y,
            .begin = begin,
            .end = end,
            .n = n,
            .rule = rule});
    });
    return;
  }
  const int64_t channels = a.unit == DropUnit::channel ? shape[-1] : 1;
  const int64_t per_sample = n / std::max<int64_t>(1, shape[0]);
  for (int64_t s = 0; s < shape[0] && n > 0; ++s) {
    std::vector<float> factors(static_cast<size_t>(channels));
    for (int64_t c = 0; c < channels; ++c)
      factors[static_cast<size_t>(c)] =
          random.half(static_cast<uint64_t>(s * channels + c)) < rule.limit ? 0.0F : rule.factor;
    parallel_for(per_sample / channels, grain_rows(channels), [&](int64_t begin, int64_t end) {
      const int64_t at = s * per_sample + begin * channels;
      drop_rows(factors, x + at, y + at, (end - begin) * channels);
    });
  }
}

template <class T>
void add_rows(const T* dy, const int32_t* index, int64_t count, int64_t rows, int64_t width,
              T* out) {
  std::vector<double> sum(static_cast<size_t>(rows * width));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = checked_row(GatherGrad::name, index[i], rows);
    for (int64_t j = 0; j < width; ++j)
      sum[static_cast<size_t>(row * width + j)] += static_cast<float>(dy[i * width + j]);
  }
  for (size_t i = 0; i < sum.size(); ++i) out[i] = T(static_cast<float>(sum[i]));
}

}  // namespace

// A unit is dropped where its random bits are below the limit: bits / 2^16 < p.
DropRule drop_rule(const Dropout::Attrs& a, uint32_t step) {
  return {.key = {static_cast<uint32_t>(a.seed), static_cast<uint32_t>(a.seed >> 32)},
          .stream = a.stream,
          .step = step,
          .limit = static_cast<uint32_t>(std::ceil(a.p * 0x1p16)),
          .factor = static_cast<float>(a.p < 1 ? 1 / (1 - a.p) : 0)};
}

Kernel prepare(const Dropout::Attrs& a, Descs in, Descs) {
  const int storage = storage_of(in[0].dtype());
  if (storage < 0) return {};
  return {.name = loop_name("dropout", to_string(a.unit)),
          .run = [a, storage, shape = in[0].shape()](Pointers x, Pointers y, std::byte*) {
            const auto step = static_cast<uint32_t>(*reinterpret_cast<const int32_t*>(x[1]));
            if (storage == 0) {
              run_dropout(a, step, shape, reinterpret_cast<const float*>(x[0]),
                          reinterpret_cast<float*>(y[0]));
            } else {
              run_dropout(a, step, shape, reinterpret_cast<const bfloat16*>(x[0]),
                          reinterpret_cast<bfloat16*>(y[0]));
            }
          }};
}

Kernel prepare(const Gather::Attrs&, Descs in, Descs) {
  const int64_t rows = in[0].shape()[0], count = in[1].numel();
  const int64_t row_bytes = rows == 0 ? 0 : in[0].meta.bytes() / rows;
  return {.name = "cpu.gather", .run = [=](Pointers data, Pointers out, std::byte*) {
            const auto* index = reinterpret_cast<const int32_t*>(data[1]);
            parallel_for(count, grain_rows(row_bytes), [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i)
                std::memcpy(out[0] + i * row_bytes,
                            data[0] + checked_row(Gather::name, index[i], rows) * row_bytes,
                            static_cast<size_t>(row_bytes));
            });
          }};
}

// On one thread: tables are small, and rows that meet in one place must add up in order.
Kernel prepare(const GatherGrad::Attrs& a, Descs in, Descs out) {
  const int storage = storage_of(in[0].dtype());
  if (storage < 0) return {};
  return {.name = "cpu.gather_grad",
          .run = [storage, rows = a.rows, count = in[1].numel(), width = out[0].numel() / a.rows](
                     Pointers data, Pointers y, std::byte*) {
            const auto* index = reinterpret_cast<const int32_t*>(data[1]);
            if (storage == 0) {
              add_rows(reinterpret_cast<const float*>(data[0]), index, count, rows, width,
                       reinterpret_cast<float*>(y[0]));
            } else {
              add_rows(reinterpret_cast<const bfloat16*>(data[0]), index, count, rows, width,
                       reinterpret_cast<bfloat16*>(y[0]));
            }
          }};
}

}  // namespace voxlab::cpu
