// Weight gradients on the kernels of bf16 blocks: dw[tap, ic, oc] sums x[position + tap, ic] dy[position, oc], a matrix
// product over positions for every tap. A block of x is turned to [ic][position], rows as long as its border needs, so
// that a tap is an offset; the same block of dy, with zeros where x has border, makes the tiles of B.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <vector>

#include "runtime/backend/cpu/dense/blocks.h"
#include "runtime/backend/cpu/dense/gather_conv.h"
#include "runtime/backend/cpu/dense/kernels_amx.h"
#include "runtime/backend/cpu/dense/passes.h"

namespace voxlab::cpu {

bool suits_wgrad_amx(const ConvGeometry& g) {
  constexpr int64_t least_channels = 16;
  if (product(g.stride) != 1 || !multiplies_bf16(active_isa())) return false;
  const int64_t in = g.in_channels / g.groups, out = g.out_channels / g.groups;
  // Each value of x is turned once, and multiplied by all taps and outputs: fewer do not pay for the turning.
  const int64_t least_products = has_amx(active_isa()) ? 64 : 512;
  return in >= least_channels && out >= least_channels && product(g.kernel) * out >= least_products;
}

#if defined(__x86_64__)

namespace {

using Triple = std::array<int64_t, 3>;

struct Call {
  const KernelTable& kernels;
  const AmxTable& amx;
  const ConvGeometry& g;
  const float* x;
  const float* dy;
  int64_t group;
  int64_t in, out;  // channels of the group
  bool split;
  Triple block;

  Triple halo() const {
    Triple h;
    for (size_t i = 0; i < 3; ++i) h[i] = g.dilation[i] * (g.kernel[i] - 1);
    return h;
  }
  int64_t row_tiles() const { return ceil_div(in, amx_rows); }
  int64_t column_tiles() const { return ceil_div(out, amx_columns); }
};

// A block's operands, and its sums added to u[tap][ic][oc].
class Worker {
 public:
  Worker(const Call& call, std::atomic<bool>& finite) : c_(call), finite_(finite) { c_.amx.begin(); }
  ~Worker() { c_.amx.end(); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Column tiles [from, to) of a block.
  void add(int64_t index, int64_t from, int64_t to, float* u) {
    if (!finite_) return;
    place(index);
    if (!turn_input() || !pack_gradient(from, to)) {
      finite_ = false;
      return;
    }
    multiply(from, to, u);
  }

 private:
  void place(int64_t index) {
    at_ = place_block(c_.g.out(), c_.block, index);
    const Triple halo = c_.halo();
    for (size_t i = 0; i < 3; ++i) box_.size[i] = at_.size[i] + halo[i];
    plane_ = box_.size[1] * box_.size[2];
    // Of dy's plane: its rows are as long as x's; the last one's border is left out.
    terms_ = ceil_div((at_.size[1] - 1) * box_.size[2] + at_.size[2], amx_depth) * amx_depth;
  }

  // x of the block as rows of channels, zero outside of the tensor, and beyond as far as tiles read.
  bool turn_input() {
    for (size_t i = 0; i < 3; ++i) box_.begin[i] = at_.begin[i] - c_.g.pad[i];
    const int64_t positions = box_.size[0] * plane_;
    const float* sample = c_.x + (at_.sample * product(c_.g.in)) * c_.g.in_channels + c_.group * c_.in;
    float* copy = scratch(Purpose::rows, positions * c_.in);
    copy_box(sample, c_.g.in, c_.g.in_channels, c_.in, box_, copy);
    float* turned = scratch(Purpose::deep, c_.in * positions);
    c_.kernels.transpose(copy, positions, c_.in, c_.in, turned, positions);
    // An odd number of cache lines keeps rows from meeting in one set.
    pitch_ = (ceil_div(positions + terms_, amx_depth) | 1) * amx_depth;
    const int64_t rows = c_.row_tiles() * amx_rows;
    high_ = half_scratch(Purpose::tile, rows * pitch_ * (c_.split ? 2 : 1));
    low_ = c_.split ? high_ + rows * pitch_ : nullptr;
    std::memset(high_, 0, static_cast<size_t>(rows * pitch_ * (c_.split ? 2 : 1)) * sizeof(uint16_t));
    bool finite = true;
    for (int64_t ic = 0; ic < c_.in; ++ic)
      finite &= c_.amx.split(turned + ic * positions, positions, high_ + ic * pitch_,
                             low_ == nullptr ? nullptr : low_ + ic * pitch_);
    return finite;
  }

  // dy of the block as tiles, [panel][plane][depth block][tile of the panel].
  bool pack_gradient(int64_t from, int64_t to) {
    const Triple out = c_.g.out();
    const int64_t blocks = terms_ / amx_depth, tiles = at_.size[0] * blocks * (to - from);
    b_high_ = half_scratch(Purpose::weights, tiles * amx_tile * (c_.split ? 2 : 1));
    b_low_ = c_.split ? b_high_ + tiles * amx_tile : nullptr;
    float* plane = scratch(Purpose::panel, terms_ * amx_columns);
    bool finite = true;
    for (int64_t t = from; t < to; ++t) {
      const int64_t column = t * amx_columns, columns = std::min(amx_columns, c_.out - column);
      const int64_t first = (t - from) / 2 * 2, width = std::min<int64_t>(2, to - from - first);  // of its panel
      for (int64_t d = 0; d < at_.size[0]; ++d) {
        std::memset(plane, 0, static_cast<size_t>(terms_ * amx_columns) * sizeof(float));
        const float* sample = c_.dy + (at_.sample * product(out)) * c_.g.out_channels + c_.group * c_.out + column;
        for (int64_t h = 0; h < at_.size[1]; ++h) {
          const int64_t row = ((at_.begin[0] + d) * out[1] + at_.begin[1] + h) * out[2] + at_.begin[2];
          for (int64_t w = 0; w < at_.size[2]; ++w)
            std::memcpy(plane + (h * box_.size[2] + w) * amx_columns, sample + (row + w) * c_.g.out_channels,
                        static_cast<size_t>(columns) * sizeof(float));
        }
        for (int64_t k = 0; k < blocks; ++k) {
          const int64_t tile = (first * at_.size[0] + d * width) * blocks + k * width + (t - from) % 2;
          finite &= c_.amx.pack(plane + k * amx_depth * amx_columns, amx_depth, amx_columns, b_high_ + tile * amx_tile,
                                b_low_ == nullptr ? nullptr : b_low_ + tile * amx_tile);
        }
      }
    }
    return finite;
  }

  void multiply(int64_t from, int64_t to, float* u) {
    const int64_t blocks = terms_ / amx_depth;
    std::vector<Run> runs(static_cast<size_t>(at_.size[0]));
    alignas(64) float sums[most_amx_block_rows * amx_block_columns];
    AmxBlockArgs args = {};
    args.a_step = pitch_ * static_cast<int64_t>(sizeof(uint16_t));
    args.runs = runs.data();
    args.run_count = at_.size[0];
    args.depth_blocks = blocks;
    args.last_pairs = amx_depth / 2;
    args.c = sums;
    int64_t tap = 0;
    for (int64_t kd = 0; kd < c_.g.kernel[0]; ++kd) {
      for (int64_t kh = 0; kh < c_.g.kernel[1]; ++kh) {
        for (int64_t kw = 0; kw < c_.g.kernel[2]; ++kw, ++tap) {
          const int64_t offset =
              kd * c_.g.dilation[0] * plane_ + kh * c_.g.dilation[1] * box_.size[2] + kw * c_.g.dilation[2];
          for (int64_t d = 0; d < at_.size[0]; ++d)
            runs[static_cast<size_t>(d)] = {(offset + d * plane_) * static_cast<int64_t>(sizeof(uint16_t)), d * blocks};
          for (int64_t t = from; t < to; t += 2) {
            args.column_tiles = static_cast<int>(std::min<int64_t>(2, to - t));
            const int64_t at = (t - from) * at_.size[0] * blocks * amx_tile;
            args.b = {b_high_ + at, b_low_ == nullptr ? nullptr : b_low_ + at};
            const int64_t block_rows = amx_block_rows(args.column_tiles);
            for (int64_t ic = 0; ic < c_.in; ic += block_rows) {
              args.rows = std::min(block_rows, c_.in - ic);
              args.a = {high_ + ic * pitch_, low_ == nullptr ? nullptr : low_ + ic * pitch_};
              c_.amx.block(args);
              const int64_t column = t * amx_columns;
              const int64_t columns = std::min(args.column_tiles * amx_columns, c_.out - column);
              for (int64_t i = 0; i < args.rows; ++i)
                c_.kernels.add(sums + i * amx_block_columns, columns, u + (tap * c_.in + ic + i) * c_.out + column);
            }
          }
        }
      }
    }
  }

  const Call& c_;
  std::atomic<bool>& finite_;
  BlockPlace at_ = {};
  Box box_ = {};
  int64_t plane_ = 0, terms_ = 0, pitch_ = 0;
  uint16_t *high_ = nullptr, *low_ = nullptr, *b_high_ = nullptr, *b_low_ = nullptr;
};

// Rows stay whole: a row cut in two has its border twice.
Triple choose_block(const Call& c) {
  const Triple out = c.g.out(), halo = c.halo();
  const int64_t budget = l2_bytes() / 2 / static_cast<int64_t>(sizeof(uint16_t));
  const double sums = static_cast<double>(product(c.g.kernel) * c.in * c.out);
  return cheapest_block(out, {1, 1, out[2]}, [&](const Triple& block) {
    if (block[2] != out[2]) return std::numeric_limits<double>::infinity();
    const double positions = static_cast<double>(product(block));
    const int64_t held = (block[0] + halo[0]) * (block[1] + halo[1]) * (block[2] + halo[2]);
    const int64_t halves = held * c.in * (c.split ? 2 : 1);
    if (halves > budget && block[0] * block[1] > 1) return std::numeric_limits<double>::infinity();
    const double terms = static_cast<double>(block[0] * ceil_div(block[1] * (block[2] + halo[2]), amx_depth) * amx_depth);
    const double turning = 1.0 * static_cast<double>(held * c.in + product(block) * c.out);
    return idle_factor(block_count(c.g.batch, out, block)) *
           (terms * sums / (16 * c.amx.speed) + turning + 0.3 * sums) / positions;
  });
}

// One group; false when a value is not finite.
bool add_group(const KernelTable& kernels, const ConvGeometry& g, const float* x, const float* dy, float* dw, bool split,
               int64_t group) {
  Call call = {kernels, active_amx(), g, x, dy, group, g.in_channels / g.groups, g.out_channels / g.groups, split, {}};
  call.block = choose_block(call);
  const int64_t blocks = block_count(g.batch, g.out(), call.block), tiles = call.column_tiles();
  const int64_t rows = product(g.kernel) * call.in, floats = rows * call.out;
  const int64_t work = product(g.out()) * g.batch * floats;
  const int64_t threads = task_grain(2, static_cast<int64_t>(static_cast<double>(work) / call.amx.speed)) > 1 ? 1 : thread_count();
  // Large sums are not held once a thread: threads then share the columns, and each turns every input.
  const bool share_columns = 4 * floats > g.batch * product(g.in) * call.in && tiles >= 2 * threads;
  const int64_t parts = share_columns ? threads : std::min(threads, blocks), copies = share_columns ? 1 : parts;
  float* u = scratch(Purpose::partial, copies * floats);
  parallel_for(copies * floats, 1 << 14, [&](int64_t begin, int64_t end) { std::fill(u + begin, u + end, 0.0F); });
  std::atomic<bool> finite = true;
  parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
    Worker worker(call, finite);
    for (int64_t part = begin; part < end; ++part) {
      // Pairs of tiles stay together.
      const int64_t pairs = ceil_div(tiles, 2);
      const int64_t from = share_columns ? 2 * (pairs * part / parts) : 0;
      const int64_t to = share_columns ? std::min(2 * (pairs * (part + 1) / parts), tiles) : tiles;
      const int64_t first = share_columns ? 0 : blocks * part / parts;
      const int64_t last = share_columns ? blocks : blocks * (part + 1) / parts;
      for (int64_t i = first; i < last; ++i) worker.add(i, from, to, u + (share_columns ? 0 : part * floats));
    }
  });
  if (!finite) return false;
  parallel_for(rows, task_grain(rows, 16 * floats), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* to = dw + row * g.out_channels + group * call.out;
      std::memcpy(to, u + row * call.out, static_cast<size_t>(call.out) * sizeof(float));
      for (int64_t copy = 1; copy < copies; ++copy) kernels.add(u + copy * floats + row * call.out, call.out, to);
    }
  });
  return true;
}

}  // namespace

bool wgrad_amx(const KernelTable& kernels, const ConvGeometry& g, const float* x, const float* dy, float* dw, bool split) {
  for (int64_t group = 0; group < g.groups; ++group)
    if (!add_group(kernels, g, x, dy, dw, split, group)) return false;
  return true;
}

#else

bool wgrad_amx(const KernelTable&, const ConvGeometry&, const float*, const float*, float*, bool) { return false; }

#endif

}  // namespace voxlab::cpu
