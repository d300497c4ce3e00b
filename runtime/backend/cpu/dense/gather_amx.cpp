// The gather driver on AMX: a block's input is converted once to bf16 (and its remainder), with
// zero border, and tiles of A are loaded straight from it, one row of K an output position.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "runtime/backend/cpu/dense/gather_conv.h"
#include "runtime/backend/cpu/dense/kernels_amx.h"
#include "runtime/backend/cpu/dense/blocks.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {

#if defined(__x86_64__)

namespace {

constexpr int64_t half_bytes = sizeof(uint16_t);
using Triple = std::array<int64_t, 3>;

// K runs: neighbouring taps along W and their channels are one run, else each tap is its own.
struct RunShape {
  int64_t runs_a_row;  // for one (tap D, tap H)
  int64_t length;      // bf16 values of K
  int64_t depth_blocks() const { return ceil_div(length, amx_depth); }
};

RunShape run_shape(const GatherConv& c) {
  const std::vector<int64_t>& w = c.axis[2].taps;
  const auto count = static_cast<int64_t>(w.size());
  const bool joined = count == 0 || w.back() - w.front() + 1 == count;
  return joined ? RunShape{1, count * c.channels} : RunShape{count, c.channels};
}

struct AmxWeights {
  const uint16_t* data;
  int64_t low;           // from a high part to its low part
  int64_t depth_blocks;  // of a whole panel
  AmxParts panel(const Panel& p, bool split) const {
    const uint16_t* high = data + p.column / amx_columns * depth_blocks * amx_tile;
    return {high, split ? high + low : nullptr};
  }
};

std::vector<Panel> split_tiles(int64_t columns) {
  std::vector<Panel> panels;
  for (int64_t c = 0; c < columns; c += amx_block_columns) {
    const int64_t left = columns - c;
    const int tiles = left > amx_columns ? 2 : 1;
    panels.push_back(
        {c, tiles,
         static_cast<int>(std::min<int64_t>(left - (tiles - 1) * amx_columns, amx_columns))});
  }
  return panels;
}

// One panel: rows of f32 first, then, run by run, tiles of K pairs.
bool pack_tiles(const KernelTable& kernels, const AmxTable& amx, const GatherConv& c, const Panel& panel,
                const AmxParts& to) {
  const RunShape shape = run_shape(c);
  const int64_t rows = weight_rows(c);
  const int64_t pitch = panel.vectors * amx_columns;
  float* f32 = scratch(Purpose::panel, rows * pitch);
  std::fill(f32, f32 + rows * pitch, 0.0F);
  pack_panel(kernels, c, panel, f32);
  bool finite = true;
  int64_t tile = 0;
  for (int64_t run = 0; run < rows; run += shape.length) {
    for (int64_t k = 0; k < shape.length; k += amx_depth) {
      for (int v = 0; v < panel.vectors; ++v, ++tile) {
        const int64_t left = std::min(amx_depth, shape.length - k);
        finite &= amx.pack(
            f32 + (run + k) * pitch + v * amx_columns, left, pitch,
            const_cast<uint16_t*>(to.high) + tile * amx_tile,
            to.low == nullptr ? nullptr : const_cast<uint16_t*>(to.low) + tile * amx_tile);
      }
    }
  }
  return finite;
}

class AmxRunner {
 public:
  // `finite` becomes false when a block's input holds a value that is not; nothing more is then computed.
  AmxRunner(const AmxTable& amx, const GatherConv& conv, const Triple& block, const AmxWeights& weights, bool split,
            std::atomic<bool>& finite)
      : amx_(amx), c_(conv), block_(block), weights_(weights), split_(split), finite_(finite), shape_(run_shape(conv)) {
    amx_.begin();
  }
  ~AmxRunner() { amx_.end(); }
  AmxRunner(const AmxRunner&) = delete;
  AmxRunner& operator=(const AmxRunner&) = delete;

  void run(int64_t index, const Panel* panels, int64_t panel_count) {
    if (!finite_) return;
    if (index != current_) {
      current_ = index;
      locate(index);
      if (!copy_input()) {
        finite_ = false;
        return;
      }
    }
    for (int64_t p = 0; p < panel_count; ++p) {
      for (int64_t d = 0; d < size_[0]; ++d) run_plane(panels[p], d);
    }
  }

 private:
  void locate(int64_t index) {
    const BlockPlace place = place_block(out_size(c_), block_, index);
    sample_ = place.sample;
    begin_ = place.begin;
    size_ = place.size;
    extent_ = input_extent(c_, size_);
  }

  bool convert(int64_t from, int64_t n, int64_t to) const {
    if (c_.in.dtype == DType::bf16) {
      return amx_.copy(static_cast<const uint16_t*>(c_.in.data) + from, n, high_ + to);
    }
    return amx_.split(static_cast<const float*>(c_.in.data) + from, n, high_ + to,
                             split_ ? low_ + to : nullptr);
  }

  void clear(int64_t to, int64_t n) const {
    std::memset(high_ + to, 0, static_cast<size_t>(n * half_bytes));
    if (split_) std::memset(low_ + to, 0, static_cast<size_t>(n * half_bytes));
  }

  bool copy_input() {
    const int64_t channels = c_.channels;
    const int64_t used = product(extent_) * channels;
    // Tiles read on past the last position; that must be finite too.
    const int64_t slack = amx_block_rows * c_.axis[2].stride * channels + 2 * amx_depth;
    high_ = half_scratch(Purpose::tile, (used + slack) * (split_ ? 2 : 1));
    low_ = split_ ? high_ + used + slack : nullptr;
    clear(used, slack);
    const Triple in = {c_.axis[0].in, c_.axis[1].in, c_.axis[2].in};
    Triple origin;
    for (int i = 0; i < 3; ++i) {
      origin[i] =
          begin_[i] * c_.axis[i].stride + (c_.axis[i].taps.empty() ? 0 : c_.axis[i].taps.front());
    }
    const int64_t from = std::clamp<int64_t>(-origin[2], 0, extent_[2]);
    const int64_t end = std::clamp<int64_t>(in[2] - origin[2], from, extent_[2]);
    bool finite = true;
    int64_t to = 0;
    for (int64_t d = origin[0]; d < origin[0] + extent_[0]; ++d) {
      for (int64_t h = origin[1]; h < origin[1] + extent_[1]; ++h, to += extent_[2] * channels) {
        if (d < 0 || d >= in[0] || h < 0 || h >= in[1]) {
          clear(to, extent_[2] * channels);
          continue;
        }
        const int64_t row = ((sample_ * in[0] + d) * in[1] + h) * in[2] + origin[2];
        clear(to, from * channels);
        if (c_.in_pitch == channels) {
          finite &= convert(c_.in_offset + (row + from) * channels, (end - from) * channels,
                            to + from * channels);
        } else {
          for (int64_t w = from; w < end; ++w) {
            finite &= convert(c_.in_offset + (row + w) * c_.in_pitch, channels, to + w * channels);
          }
        }
        clear(to + end * channels, (extent_[2] - end) * channels);
      }
    }
    return finite;
  }

  void list_runs(int64_t d, int64_t h_from, int64_t h_to) {
    runs_.clear();
    const GatherAxis& ad = c_.axis[0];
    const GatherAxis& ah = c_.axis[1];
    const std::vector<int64_t>& tw = c_.axis[2].taps;
    if (tw.empty()) return;
    for (size_t i = 0; i < ad.taps.size(); ++i) {
      const int64_t at_d = (begin_[0] + d) * ad.stride + ad.taps[i];
      if (at_d < 0 || at_d >= ad.in) continue;
      for (size_t j = 0; j < ah.taps.size(); ++j) {
        const int64_t low = (begin_[1] + h_from) * ah.stride + ah.taps[j];
        const int64_t high = (begin_[1] + h_to) * ah.stride + ah.taps[j];
        if (high < 0 || low >= ah.in) continue;
        const int64_t row = (ad.taps[i] - ad.taps[0]) * extent_[1] + ah.taps[j] - ah.taps[0];
        const auto kernel_row = static_cast<int64_t>(i * ah.taps.size() + j);
        for (int64_t k = 0; k < shape_.runs_a_row; ++k) {
          const int64_t tap = shape_.runs_a_row == 1 ? 0 : tw[static_cast<size_t>(k)] - tw[0];
          runs_.push_back({(row * extent_[2] + tap) * c_.channels * half_bytes,
                           (kernel_row * shape_.runs_a_row + k) * shape_.depth_blocks()});
        }
      }
    }
  }

  // Rows of a plane lie one scratch row apart. With stride 1 the whole plane is one stretch of
  // positions, whose tiles waste the border columns; else each output row is its own stretch.
  void run_plane(const Panel& panel, int64_t d) {
    const bool unit = c_.axis[1].stride == 1 && c_.axis[2].stride == 1;
    const int64_t width = size_[2];
    const int64_t height = size_[1];
    const auto tiles = [](int64_t rows) { return ceil_div(rows, amx_rows); };
    const int64_t whole = (height - 1) * extent_[2] + width;
    if (unit && tiles(whole) < height * tiles(width)) {
      run_stretch(panel, d, 0, height, whole);
      return;
    }
    for (int64_t h = 0; h < height; ++h) run_stretch(panel, d, h, 1, width);
  }

  // `rows` positions from the start of output row h, over `heights` output rows.
  void run_stretch(const Panel& panel, int64_t d, int64_t h, int64_t heights, int64_t rows) {
    list_runs(d, h, h + heights - 1);
    const int64_t step = c_.axis[2].stride * c_.channels * half_bytes;
    const int64_t origin =
        (d * c_.axis[0].stride * extent_[1] + h * c_.axis[1].stride) * extent_[2] * c_.channels;
    alignas(64) float sums[amx_block_rows * amx_block_columns];
    AmxBlockArgs args = {};
    args.a_step = step;
    args.runs = runs_.data();
    args.run_count = static_cast<int64_t>(runs_.size());
    args.depth_blocks = shape_.depth_blocks();
    args.last_pairs = ceil_div(shape_.length - (args.depth_blocks - 1) * amx_depth, 2);
    args.b = weights_.panel(panel, split_);
    args.column_tiles = panel.vectors;
    args.c = sums;
    for (int64_t m = 0; m < rows; m += amx_block_rows) {
      const int64_t now = std::min(amx_block_rows, rows - m);
      const int64_t offset = origin + m * step / half_bytes;
      args.a = {high_ + offset, split_ ? low_ + offset : nullptr};
      args.rows = now;
      args.row_tiles = now > amx_rows ? 2 : 1;
      amx_.block(args);
      for (int64_t i = 0; i < now; ++i) {
        const int64_t at_h = heights == 1 ? 0 : (m + i) / extent_[2];
        const int64_t at_w = heights == 1 ? m + i : (m + i) % extent_[2];
        if (at_w < size_[2]) store(panel, sums + i * amx_block_columns, d, h + at_h, at_w);
      }
    }
  }

  void store(const Panel& panel, const float* sums, int64_t d, int64_t h, int64_t w) {
    const int64_t at = c_.out_offset + sample_ * c_.out_batch + (begin_[0] + d) * c_.out_step[0] +
                       (begin_[1] + h) * c_.out_step[1] + (begin_[2] + w) * c_.out_step[2] +
                       panel.column;
    AmxStoreArgs args = {};
    args.sums = sums;
    args.columns = static_cast<int>((panel.vectors - 1) * amx_columns) + panel.last_columns;
    args.bias = c_.epilogue.bias == nullptr ? nullptr : c_.epilogue.bias + panel.column;
    args.residual = c_.epilogue.residual == nullptr ? nullptr : c_.epilogue.residual + at;
    args.activation = static_cast<int>(c_.epilogue.activation);
    args.slope = c_.epilogue.slope;
    if (c_.out.dtype == DType::bf16) {
      args.out_bf16 = static_cast<uint16_t*>(c_.out.data) + at;
    } else {
      args.out = static_cast<float*>(c_.out.data) + at;
    }
    amx_.store(args);
  }

  const AmxTable& amx_;
  const GatherConv& c_;
  Triple block_;
  AmxWeights weights_;
  bool split_;
  std::atomic<bool>& finite_;
  RunShape shape_;
  int64_t current_ = -1;
  int64_t sample_ = 0;
  Triple begin_ = {};
  Triple size_ = {};
  Triple extent_ = {};
  uint16_t* high_ = nullptr;
  uint16_t* low_ = nullptr;
  std::vector<Run> runs_;
};

}  // namespace

bool gather_conv_amx(const KernelTable& kernels, GatherConv conv, bool split) {
  const AmxTable& amx = active_amx();
  flatten(conv);
  const double vectors = static_cast<double>(ceil_div(conv.columns, amx_columns));
  const Triple block = choose_block(conv, vectors * (split ? 3.0 : 1.0) / amx.speed);
  const std::vector<Panel> panels = split_tiles(conv.columns);
  const auto panel_count = static_cast<int64_t>(panels.size());
  const RunShape shape = run_shape(conv);
  AmxWeights weights = {};
  weights.depth_blocks =
      shape.length == 0 ? 0 : weight_rows(conv) / shape.length * shape.depth_blocks();
  const int64_t halves = ceil_div(conv.columns, amx_columns) * weights.depth_blocks * amx_tile;
  weights.data = half_scratch(Purpose::weights, halves * (split ? 2 : 1));
  weights.low = halves;
  std::atomic<bool> finite = true;
  parallel_for(
      panel_count, task_grain(panel_count, weight_rows(conv) * conv.columns * 100),
      [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const Panel& panel = panels[static_cast<size_t>(i)];
          if (shape.length > 0 && !pack_tiles(kernels, amx, conv, panel, weights.panel(panel, split))) {
            finite = false;
          }
        }
      });
  const double work = static_cast<double>(multiply_adds(conv)) / amx.speed;
  run_blocks(block_count(conv.batch, out_size(conv), block), panels, static_cast<int64_t>(work),
             [&] { return AmxRunner(amx, conv, block, weights, split, finite); });
  return finite;
}

#else

bool gather_conv_amx(const KernelTable&, GatherConv, bool) { return false; }

#endif

}  // namespace voxlab::cpu
