// Weight gradient: for one kernel row, the (kernel column x in channel) values under an output
// position are contiguous, so dw[row] is a matrix product over positions with A read across.
#include <algorithm>
#include <limits>
#include <vector>

#include "runtime/backend/cpu/dense/gather_conv.h"
#include "runtime/backend/cpu/dense/passes.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/dense/winograd.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {
namespace {

constexpr int64_t float_bytes = sizeof(float);
using Triple = std::array<int64_t, 3>;

struct WgradCall {
  const KernelTable& kernels;
  const ConvGeometry& g;
  Triple out;
  const float* x;   // first channel of the group
  const float* dy;  // first channel of the group
  int64_t group_in;
  int64_t group_out;
  bool row_joined;  // kernel columns and channels form one contiguous run
  bool direct;      // no border: x is read in place
  std::vector<Panel> panels;
};

// A box of output rows (whole along W) of one sample.
struct Chunk {
  int64_t sample;
  std::array<int64_t, 2> begin;  // D, H
  std::array<int64_t, 2> size;
};

// A job is one kernel row (kd, kh) of one column panel.
int64_t job_count(const WgradCall& call) {
  return static_cast<int64_t>(call.panels.size()) * call.g.kernel[0] * call.g.kernel[1];
}

int64_t multiply_adds(const WgradCall& call) {
  return call.g.batch * product(call.out) * product(call.g.kernel) * call.group_in * call.group_out;
}

class WgradWorker {
 public:
  // dw is the first column of the group, rows out_channels apart.
  WgradWorker(const WgradCall& call, float* dw) : call_(call), dw_(dw) {}

  void add(const Chunk& chunk, int64_t job_begin, int64_t job_end) {
    place_input(chunk);
    const int64_t kernel_rows = call_.g.kernel[0] * call_.g.kernel[1];
    for (int64_t job = job_begin; job < job_end; ++job) {
      add_kernel_row(chunk, call_.panels[static_cast<size_t>(job / kernel_rows)],
                     job % kernel_rows);
    }
  }

 private:
  void place_input(const Chunk& chunk) {
    const ConvGeometry& g = call_.g;
    const float* sample = call_.x + chunk.sample * product(g.in) * g.in_channels;
    Box box;
    box.begin = {chunk.begin[0] * g.stride[0] - g.pad[0], chunk.begin[1] * g.stride[1] - g.pad[1],
                 -g.pad[2]};
    if (call_.direct) {
      pitch_ = {g.in[1] * g.in[2] * g.in_channels, g.in[2] * g.in_channels, g.in_channels};
      a_ = sample + box.begin[0] * pitch_[0] + box.begin[1] * pitch_[1];
      return;
    }
    const Triple outputs = {chunk.size[0], chunk.size[1], call_.out[2]};
    for (int i = 0; i < 3; ++i) {
      box.size[i] = (outputs[i] - 1) * g.stride[i] + (g.kernel[i] - 1) * g.dilation[i] + 1;
    }
    const int64_t floats = product(box.size) * call_.group_in;
    float* copy = scratch(Purpose::tile, floats + 1);
    copy_box(sample, g.in, g.in_channels, call_.group_in, box, copy);
    copy[floats] = 0.0F;  // read, and dropped, by the partner of an odd last row
    pitch_ = {box.size[1] * box.size[2] * call_.group_in, box.size[2] * call_.group_in,
              call_.group_in};
    a_ = copy;
  }

  void list_runs(const Chunk& chunk, int64_t kd, int64_t kh) {
    const ConvGeometry& g = call_.g;
    runs_.clear();
    for (int64_t d = 0; d < chunk.size[0]; ++d) {
      const int64_t plane = (chunk.begin[0] + d) * g.stride[0] - g.pad[0] + kd * g.dilation[0];
      if (plane < 0 || plane >= g.in[0]) continue;
      for (int64_t h = 0; h < chunk.size[1]; ++h) {
        const int64_t row = (chunk.begin[1] + h) * g.stride[1] - g.pad[1] + kh * g.dilation[1];
        if (row < 0 || row >= g.in[1]) continue;
        const int64_t a = (d * g.stride[0] + kd * g.dilation[0]) * pitch_[0] +
                          (h * g.stride[1] + kh * g.dilation[1]) * pitch_[1];
        runs_.push_back({a * float_bytes, (d * call_.out[1] + h) * call_.out[2]});
      }
    }
  }

  void add_kernel_row(const Chunk& chunk, const Panel& panel, int64_t kernel_row) {
    const ConvGeometry& g = call_.g;
    list_runs(chunk, kernel_row / g.kernel[1], kernel_row % g.kernel[1]);
    if (runs_.empty()) return;
    const int64_t dy_row =
        (chunk.sample * call_.out[0] + chunk.begin[0]) * call_.out[1] + chunk.begin[1];
    const float* b = call_.dy + dy_row * call_.out[2] * g.out_channels + panel.column;
    float* c = dw_ + kernel_row * g.kernel[2] * call_.group_in * g.out_channels + panel.column;
    if (call_.row_joined) {
      add_rows(panel, a_, b, c, g.kernel[2] * call_.group_in);
      return;
    }
    for (int64_t kw = 0; kw < g.kernel[2]; ++kw) {
      add_rows(panel, a_ + kw * g.dilation[2] * pitch_[2], b,
               c + kw * call_.group_in * g.out_channels, call_.group_in);
    }
  }

  // Row m of dw gains the sum over positions of a[m + position * step] * b[position].
  void add_rows(const Panel& panel, const float* a, const float* b, float* c, int64_t count) {
    TileArgs args = {};
    args.k_step = call_.g.stride[2] * pitch_[2] * float_bytes;
    args.runs = runs_.data();
    args.run_count = static_cast<int64_t>(runs_.size());
    args.k = call_.out[2];
    args.b = b;
    args.ldb = call_.g.out_channels;
    args.last_columns = panel.last_columns;
    args.accumulate = true;
    alignas(64) float dropped[max_panel_vectors * 16] = {};
    float* rows[max_tile_rows];
    args.c = rows;
    const int64_t pairs = ceil_div(count, 2);
    if (product(call_.g.kernel) == 1 && pairs <= call_.kernels.pairs[panel.vectors - 1]) return add_few_rows(args, panel, a, c, count);
    const int64_t tiles = ceil_div(pairs, call_.kernels.unit_pairs[panel.vectors - 1]);
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t from = 2 * share(pairs, t, tiles);
      const int64_t to = 2 * share(pairs, t + 1, tiles);
      for (int64_t m = from; m < to; ++m) {
        rows[m - from] = m < count ? c + m * call_.g.out_channels : dropped;
      }
      args.a = reinterpret_cast<const char*>(a + from);
      call_.kernels.unit_tile[panel.vectors - 1][(to - from) / 2 - 1](args);
    }
  }

  // All of them in one tile, for which dy is read but once: it asks for what comes later.
  void add_few_rows(TileArgs& args, const Panel& panel, const float* a, float* c, int64_t count) {
    constexpr int64_t ahead = 384;  // floats
    alignas(64) float dropped[max_panel_vectors * 16] = {};
    const int64_t pairs = ceil_div(count, 2);
    int64_t pair_bytes[max_pairs];
    float* rows[2 * max_pairs];
    for (int64_t i = 0; i < pairs; ++i) {
      pair_bytes[i] = 2 * i * float_bytes;
      for (const int64_t m : {2 * i, 2 * i + 1}) rows[m] = m < count ? c + m * call_.g.out_channels : dropped;
    }
    args.c = rows;
    args.a = reinterpret_cast<const char*>(a);
    args.pair_bytes = pair_bytes;
    args.pair_step = float_bytes;
    args.b_ahead = ahead;
    call_.kernels.tile[panel.vectors - 1][pairs - 1](args);
  }

  const WgradCall& call_;
  float* dw_;
  const float* a_ = nullptr;
  Triple pitch_ = {};
  std::vector<Run> runs_;
};

// Boxes whose input and output gradient share the second-level cache, in a fixed order.
std::vector<Chunk> list_chunks(const WgradCall& call) {
  const ConvGeometry& g = call.g;
  const int64_t budget = l2_bytes() / 2 / float_bytes;
  const auto footprint = [&](int64_t d, int64_t h) {
    const int64_t depth = (d - 1) * g.stride[0] + (g.kernel[0] - 1) * g.dilation[0] + 1;
    const int64_t height = (h - 1) * g.stride[1] + (g.kernel[1] - 1) * g.dilation[1] + 1;
    return depth * height * (g.in[2] + 2 * g.pad[2]) * call.group_in +
           d * h * call.out[2] * call.group_out;
  };
  // The chunk with the least input read for each output row.
  std::array<int64_t, 2> best = {1, 1};
  double best_cost = std::numeric_limits<double>::infinity();
  const int64_t least_chunks = std::min<int64_t>(2 * thread_count(), call.out[0] * call.out[1]);
  for (int64_t d = call.out[0]; d >= 1; d = d == 1 ? 0 : ceil_div(d, 2)) {
    for (int64_t h = call.out[1]; h >= 1; h = h == 1 ? 0 : ceil_div(h, 2)) {
      const int64_t chunks = g.batch * ceil_div(call.out[0], d) * ceil_div(call.out[1], h);
      const double rows = static_cast<double>(d * h);
      const bool fits = footprint(d, h) <= budget;
      if ((!fits || chunks < least_chunks) && d * h > 1) continue;
      const double cost = static_cast<double>(footprint(d, h)) / rows;
      if (cost < best_cost) {
        best_cost = cost;
        best = {d, h};
      }
    }
  }
  std::vector<Chunk> chunks;
  for (int64_t n = 0; n < g.batch; ++n) {
    for (int64_t d = 0; d < call.out[0]; d += best[0]) {
      for (int64_t h = 0; h < call.out[1]; h += best[1]) {
        chunks.push_back(
            {n, {d, h}, {std::min(best[0], call.out[0] - d), std::min(best[1], call.out[1] - h)}});
      }
    }
  }
  return chunks;
}

// Threads share the jobs: no partial sums, but each copies the input for itself. For large weights.
void share_jobs(const WgradCall& call, const std::vector<Chunk>& chunks, float* dw) {
  parallel_for(job_count(call), task_grain(job_count(call), multiply_adds(call)),
               [&](int64_t begin, int64_t end) {
                 WgradWorker worker(call, dw);
                 for (const Chunk& chunk : chunks) worker.add(chunk, begin, end);
               });
}

// Threads share the chunks, each with its own sums, which are then added in thread order.
void share_chunks(const WgradCall& call, const std::vector<Chunk>& chunks, int64_t group_column,
                  float* dw) {
  const int64_t floats = product(call.g.kernel) * call.group_in * call.g.out_channels;
  const auto chunk_count = static_cast<int64_t>(chunks.size());
  const bool small = task_grain(2, multiply_adds(call)) > 1;
  const int64_t parts = small ? 1 : std::min<int64_t>(thread_count(), chunk_count);
  float* partial = scratch(Purpose::partial, (parts - 1) * floats);
  parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      float* sums = dw;
      if (part > 0) {
        sums = partial + (part - 1) * floats;
        std::fill(sums, sums + floats, 0.0F);
      }
      WgradWorker worker(call, sums + group_column);
      for (int64_t i = chunk_count * part / parts; i < chunk_count * (part + 1) / parts; ++i) {
        worker.add(chunks[static_cast<size_t>(i)], 0, job_count(call));
      }
    }
  });
  constexpr int64_t grain = 4096;
  parallel_for(floats, grain, [&](int64_t begin, int64_t end) {
    for (int64_t part = 1; part < parts; ++part) {
      call.kernels.add(partial + (part - 1) * floats + begin, end - begin, dw + begin);
    }
  });
}

void wgrad_by_winograd(const KernelTable& kernels, const ConvGeometry& g, ConstBuffer x, ConstBuffer dy, float* dw, bool three,
                       const PairTable* pairs) {
  for (int64_t group = 0; group < g.groups; ++group) {
    const GatherConv conv = forward_gather(g, x, nullptr, {}, {}, group);
    winograd_wgrad(kernels, conv, dy, dw + conv.out_offset, g.out_channels, three, pairs);
  }
}

// With a kernel of 1 and few output channels their rows, not those of the input's, make full vectors of columns.
bool turns(const KernelTable& kernels, const ConvGeometry& g) {
  const bool product_of_rows = product(g.kernel) == 1 && product(g.stride) == 1 && g.pad == Triple{0, 0, 0} && g.groups == 1;
  const int64_t width = kernels.width, in = g.in_channels, out = g.out_channels;
  return product_of_rows && ceil_div(out, 2) * 2 * ceil_div(in, width) < ceil_div(in, 2) * 2 * ceil_div(out, width);
}

void turned_wgrad(const KernelTable& kernels, ConvGeometry g, ConstBuffer x, ConstBuffer dy, float* dw) {
  std::swap(g.in_channels, g.out_channels);
  float* turned = scratch(Purpose::turned, g.in_channels * g.out_channels);
  dense_wgrad(kernels, g, dy, x, turned, GatherMode::f32);
  kernels.transpose(turned, g.in_channels, g.out_channels, g.out_channels, dw, g.in_channels);
}

}  // namespace

void dense_wgrad(const KernelTable& kernels, const ConvGeometry& g, ConstBuffer x, ConstBuffer dy, float* dw, GatherMode mode) {
  if (mode == GatherMode::winograd || mode == GatherMode::winograd3)
    return wgrad_by_winograd(kernels, g, x, dy, dw, mode == GatherMode::winograd3, nullptr);
  if (mode == GatherMode::winograd_pairs) return wgrad_by_winograd(kernels, g, x, dy, dw, false, active_pairs());
  if (turns(kernels, g)) return turned_wgrad(kernels, g, x, dy, dw);
  const auto *xf = static_cast<const float*>(x.data), *dyf = static_cast<const float*>(dy.data);
  const int64_t group_in = g.in_channels / g.groups;
  const int64_t group_out = g.out_channels / g.groups;
  const bool row_joined = g.dilation[2] == 1 && g.groups == 1;
  const int64_t count = row_joined ? g.kernel[2] * group_in : group_in;
  const bool borderless = g.pad == Triple{0, 0, 0};
  WgradCall call = {kernels,
                    g,
                    g.out(),
                    xf,
                    dyf,
                    group_in,
                    group_out,
                    row_joined,
                    borderless && count % 2 == 0,
                    split_columns(group_out, kernels.width)};
  const int64_t weights = product(g.kernel) * group_in * g.out_channels;
  parallel_for(weights, 16384,
               [&](int64_t begin, int64_t end) { std::fill(dw + begin, dw + end, 0.0F); });
  const std::vector<Chunk> chunks = list_chunks(call);
  const int64_t activations = g.batch * product(g.in) * group_in;
  const bool heavy = weights * thread_count() * 4 > activations;
  for (int64_t group = 0; group < g.groups; ++group) {
    call.x = xf + group * group_in;
    call.dy = dyf + group * group_out;
    if (heavy && job_count(call) >= 2 * thread_count()) {
      share_jobs(call, chunks, dw + group * group_out);
    } else {
      share_chunks(call, chunks, group * group_out, dw);
    }
  }
}

}  // namespace voxlab::cpu
