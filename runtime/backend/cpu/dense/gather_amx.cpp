// The gather driver on AMX: the input's planes under a block are converted once to bf16 (and its remainder), with zero
// border, and tiles of A are loaded straight from them, one row of K an output position.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <vector>

#include "runtime/backend/cpu/dense/blocks.h"
#include "runtime/backend/cpu/dense/gather_conv.h"
#include "runtime/backend/cpu/dense/kernels_amx.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/dense/weights_amx.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {

#if defined(__x86_64__)

namespace {

constexpr int64_t half_bytes = sizeof(uint16_t);
constexpr int64_t cache_line_halves = 32;  // a row of a tile that lies across two lines loads at half the speed
using Triple = std::array<int64_t, 3>;

// Planes of the input under one plane of the output.
int64_t planes_held(const GatherConv& c) {
  const std::vector<int64_t>& taps = c.axis[0].taps;
  return taps.empty() ? 1 : taps.back() - taps.front() + 1;
}

// In cycles of a core.
Triple choose_amx_block(const GatherConv& c, bool split) {
  const int64_t budget = l2_bytes() / 3;
  const int64_t value_bytes = half_bytes * (split ? 2 : 1);
  const RunShape shape = run_shape(c);
  const auto kernel_rows = static_cast<int64_t>(c.axis[0].taps.size() * c.axis[1].taps.size());
  const double products = static_cast<double>(kernel_rows * shape.runs_a_row * shape.depth_blocks() *
                                              ceil_div(c.columns, amx_columns) * (split ? 3 : 1));
  const bool unit = c.axis[1].stride == 1 && c.axis[2].stride == 1;
  return cheapest_block(out_size(c), {1, 1, std::min<int64_t>(c.axis[2].out, 16)}, [&](const Triple& block) {
    const Triple extent = input_extent(c, block);
    const int64_t plane = extent[1] * extent[2] * c.channels;
    if (planes_held(c) * plane * value_bytes > budget) return std::numeric_limits<double>::infinity();
    const double positions = static_cast<double>(product(block));
    const int64_t rows = std::min(block[1] * ceil_div(block[2], amx_rows),
                                  unit ? ceil_div((block[1] - 1) * extent[2] + block[2], amx_rows) : block[1] * block[2]);
    const double multiplying = 16.0 * products * static_cast<double>(block[0] * rows);
    const double copying = 0.8 * static_cast<double>(extent[0] * plane);
    const double overhead = 1000.0 * static_cast<double>(block[0] * ceil_div(c.columns, amx_block_columns)) + 2000.0;
    return idle_factor(block_count(c.batch, out_size(c), block)) * (multiplying + copying + overhead) / positions;
  });
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

  // Plane after plane of the output, so that no more planes of the input are held than one needs.
  void run(int64_t index, const Panel* panels, int64_t panel_count) {
    if (!finite_) return;
    // A few panels of the block may have been computed before.
    if (index != current_ || extent_[0] > ring_) {
      current_ = index;
      locate(index);
    }
    for (int64_t d = 0; d < size_[0]; ++d) {
      if (!copy_planes(d * c_.axis[0].stride + ring_)) {
        finite_ = false;
        return;
      }
      list_runs(d);
      plan_prefetch(d * c_.axis[0].stride + ring_, panel_count);
      run_plane(panels, panel_count, d);
    }
  }

 private:
  void locate(int64_t index) {
    const BlockPlace place = place_block(out_size(c_), block_, index);
    sample_ = place.sample;
    begin_ = place.begin;
    size_ = place.size;
    extent_ = input_extent(c_, size_);
    ring_ = planes_held(c_);
    copied_ = 0;
    plane_ = extent_[1] * extent_[2] * c_.channels;
    // Tiles read on past the last position. Rows of A that nobody wants may hold anything, but what they read of K past
    // a plane's last run, times zeros, must be finite.
    const int64_t slack = most_amx_block_rows * c_.axis[2].stride * c_.channels + 2 * amx_depth;
    const int64_t used = ring_ * plane_;
    const int64_t whole = ceil_div(used + slack, cache_line_halves) * cache_line_halves;
    high_ = half_scratch(Purpose::tile, whole * (split_ ? 2 : 1));
    low_ = split_ ? high_ + whole : nullptr;
    for (int64_t plane = 1; plane <= ring_; ++plane) clear(plane * plane_, std::min(2 * amx_depth, whole - plane * plane_));
    list_stretches();
  }

  bool split(const float* from, int64_t rows, int64_t n, int64_t in_pitch, int64_t out_pitch, int64_t to) const {
    return amx_.split({from, rows, n, in_pitch, out_pitch, high_ + to, split_ ? low_ + to : nullptr});
  }

  // `count` positions from input position `row` on.
  bool convert(int64_t row, int64_t count, int64_t to) const {
    const int64_t channels = c_.channels, first = channels - c_.second.channels, at = c_.in_offset + row * c_.in_pitch;
    const bool compact = c_.in_pitch == channels;
    if (c_.in.dtype == DType::bf16) {
      const auto* from = static_cast<const uint16_t*>(c_.in.data) + at;
      if (compact) return amx_.copy(from, count * channels, high_ + to);
      bool finite = true;
      for (int64_t i = 0; i < count; ++i) finite &= amx_.copy(from + i * c_.in_pitch, channels, high_ + to + i * channels);
      return finite;
    }
    const float* from = static_cast<const float*>(c_.in.data) + at;
    if (compact) return split(from, 1, count * channels, 0, 0, to);
    const bool finite = split(from, count, first, c_.in_pitch, channels, to);
    if (first == channels) return finite;
    const int64_t rest = c_.second.channels;
    return split(c_.second.data + row * rest, count, rest, rest, channels, to + first) && finite;
  }

  void clear(int64_t to, int64_t n) const {
    std::memset(high_ + to, 0, static_cast<size_t>(n * half_bytes));
    if (split_) std::memset(low_ + to, 0, static_cast<size_t>(n * half_bytes));
  }

  // Planes of the block's input up to `end`, each in the place of the oldest.
  bool copy_planes(int64_t end) {
    bool finite = true;
    for (end = std::min(end, extent_[0]); copied_ < end; ++copied_) finite &= copy_plane(copied_);
    return finite;
  }

  // The input position under the block's first output and tap.
  int64_t input_begin(size_t axis) const {
    const GatherAxis& a = c_.axis[axis];
    return begin_[axis] * a.stride + (a.taps.empty() ? 0 : a.taps.front());
  }

  int64_t plane_at(int64_t plane) const { return plane % ring_ * plane_; }

  bool copy_plane(int64_t plane) {
    const int64_t channels = c_.channels;
    const Triple in = {c_.axis[0].in, c_.axis[1].in, c_.axis[2].in};
    const Triple origin = {input_begin(0), input_begin(1), input_begin(2)};
    const int64_t d = origin[0] + plane;
    if (d < 0 || d >= in[0]) return true;  // in no run
    const int64_t from = std::clamp<int64_t>(-origin[2], 0, extent_[2]);
    const int64_t end = std::clamp<int64_t>(in[2] - origin[2], from, extent_[2]);
    bool finite = true;
    int64_t to = plane_at(plane);
    for (int64_t h = origin[1]; h < origin[1] + extent_[1]; ++h, to += extent_[2] * channels) {
      if (h < 0 || h >= in[1]) {
        clear(to, extent_[2] * channels);
        continue;
      }
      const int64_t row = ((sample_ * in[0] + d) * in[1] + h) * in[2] + origin[2];
      clear(to, from * channels);
      finite &= convert(row + from, end - from, to + from * channels);
      clear(to + end * channels, (extent_[2] - end) * channels);
    }
    return finite;
  }

  // Those of a plane of the output; kernel rows that meet no input are left out.
  void list_runs(int64_t d) {
    runs_.clear();
    const GatherAxis& ad = c_.axis[0];
    const GatherAxis& ah = c_.axis[1];
    const std::vector<int64_t>& tw = c_.axis[2].taps;
    if (tw.empty()) return;
    for (size_t i = 0; i < ad.taps.size(); ++i) {
      const int64_t at_d = (begin_[0] + d) * ad.stride + ad.taps[i];
      if (at_d < 0 || at_d >= ad.in) continue;
      const int64_t plane = plane_at(d * ad.stride + ad.taps[i] - ad.taps[0]);
      for (size_t j = 0; j < ah.taps.size(); ++j) {
        const int64_t low = begin_[1] * ah.stride + ah.taps[j];
        if (low + (size_[1] - 1) * ah.stride < 0 || low >= ah.in) continue;
        const int64_t row = plane + (ah.taps[j] - ah.taps[0]) * extent_[2] * c_.channels;
        const auto kernel_row = static_cast<int64_t>(i * ah.taps.size() + j);
        for (int64_t k = 0; k < shape_.runs_a_row; ++k) {
          const int64_t tap = shape_.runs_a_row == 1 ? 0 : tw[static_cast<size_t>(k)] - tw[0];
          runs_.push_back({(row + tap * c_.channels) * half_bytes,
                           (kernel_row * shape_.runs_a_row + k) * shape_.depth_blocks()});
        }
      }
    }
  }

  // Neighbouring positions of a plane of the output.
  struct Stretch {
    int64_t a;     // bytes from the plane's first input
    int64_t rows;  // of A
    int64_t h, w;
  };

  // Rows of the output, or with stride 1 often better the plane as one stretch, whose rows of A lie one input row apart
  // and whose tiles waste the border between them.
  void list_stretches() {
    const bool unit = c_.axis[1].stride == 1 && c_.axis[2].stride == 1;
    const int64_t width = size_[2];
    const int64_t height = size_[1];
    const auto tiles = [](int64_t rows) { return ceil_div(rows, amx_rows); };
    const int64_t whole = (height - 1) * extent_[2] + width;
    joined_ = unit && 8 * tiles(whole) < 9 * height * tiles(width);
    stretches_.clear();
    const int64_t step = c_.axis[2].stride * c_.channels * half_bytes;
    for (int64_t h = 0; h < (joined_ ? 1 : height); ++h) {
      const int64_t rows = joined_ ? whole : width;
      for (int64_t m = 0; m < rows; m += most_amx_block_rows) {
        const int64_t a = h * c_.axis[1].stride * extent_[2] * c_.channels * half_bytes + m * step;
        const int64_t at_h = joined_ ? m / extent_[2] : h;
        stretches_.push_back({a, std::min(most_amx_block_rows, rows - m), at_h, m - (joined_ ? at_h * extent_[2] : 0)});
      }
    }
  }

  // The planes of the input that the next plane of the output needs lie in one piece if rows are whole.
  void plan_prefetch(int64_t plane, int64_t panel_count) {
    next_ = nullptr;
    next_bytes_ = 0;
    const int64_t d = input_begin(0) + plane, h = std::max<int64_t>(0, input_begin(1));
    const int64_t end = std::min(input_begin(1) + extent_[1], c_.axis[1].in);
    constexpr int64_t least_steps = 12;  // along K: in fewer, the lines would wait for each other
    if (static_cast<int64_t>(runs_.size()) * shape_.depth_blocks() < least_steps) return;
    if (plane >= extent_[0] || d < 0 || d >= c_.axis[0].in || h >= end || size_[2] != c_.axis[2].out) return;
    const int64_t bytes = c_.in.dtype == DType::bf16 ? half_bytes : static_cast<int64_t>(sizeof(float));
    const int64_t row = c_.axis[2].in * c_.in_pitch * bytes;
    next_ = static_cast<const char*>(c_.in.data) + c_.in_offset * bytes + ((sample_ * c_.axis[0].in + d) * c_.axis[1].in + h) * row;
    next_bytes_ = ceil_div((end - h) * row, static_cast<int64_t>(stretches_.size()) * panel_count);
  }

  // What passes over the other in the inner loop should stay in the first-level cache: a stretch of A if all of B is
  // small, else one panel of B.
  void run_plane(const Panel* panels, int64_t panel_count, int64_t d) {
    constexpr int64_t small = int64_t{64} << 10;
    int64_t tiles = 0;
    for (int64_t p = 0; p < panel_count; ++p) tiles += panels[p].vectors;
    const bool small_b = tiles * weights_.depth_blocks * amx_tile * half_bytes * (split_ ? 2 : 1) <= small;
    if (small_b) {
      for (const Stretch& stretch : stretches_)
        for (int64_t p = 0; p < panel_count; ++p) run_stretch(panels[p], d, stretch);
    } else {
      for (int64_t p = 0; p < panel_count; ++p)
        for (const Stretch& stretch : stretches_) run_stretch(panels[p], d, stretch);
    }
  }

  void run_stretch(const Panel& panel, int64_t d, const Stretch& stretch) {
    alignas(64) float sums[most_amx_block_rows * amx_block_columns];
    AmxBlockArgs args = {};
    args.a_step = c_.axis[2].stride * c_.channels * half_bytes;
    args.runs = runs_.data();
    args.run_count = static_cast<int64_t>(runs_.size());
    args.depth_blocks = shape_.depth_blocks();
    args.last_pairs = ceil_div(shape_.length - (args.depth_blocks - 1) * amx_depth, 2);
    args.b = weights_.panel(panel, split_);
    args.column_tiles = panel.vectors;
    // Close enough where a stretch runs on over the border.
    const int64_t out_bytes = c_.out.dtype == DType::bf16 ? half_bytes : static_cast<int64_t>(sizeof(float));
    const char* out = static_cast<const char*>(c_.out.data) + out_bytes * out_at(panel, d, stretch.h, stretch.w);
    args.out_step = out_bytes * c_.out_step[2];
    const int64_t block_rows = amx_block_rows(panel.vectors);
    for (int64_t row = 0; row < stretch.rows; row += block_rows) {
      const int64_t offset = (stretch.a + row * args.a_step) / half_bytes;
      args.a = {high_ + offset, split_ ? low_ + offset : nullptr};
      args.rows = std::min(block_rows, stretch.rows - row);
      args.c = sums + row * amx_block_columns;
      args.out = out + row * args.out_step;
      const bool last = row + block_rows >= stretch.rows;
      args.next = next_;
      args.next_bytes = last ? next_bytes_ : 0;
      amx_.block(args);
    }
    if (next_ != nullptr) next_ += next_bytes_;
    store_stretch(panel, sums, d, stretch);
  }

  void store_stretch(const Panel& panel, const float* sums, int64_t d, const Stretch& stretch) {
    int64_t h = stretch.h, w = stretch.w;
    for (int64_t row = 0; row < stretch.rows; ++h, w = 0) {
      const int64_t line = joined_ ? extent_[2] : size_[2];  // what is beyond size_ belongs to the border
      const int64_t left = stretch.rows - row;
      const int64_t wanted = std::min(size_[2] - w, left);
      if (wanted > 0) store(panel, sums + row * amx_block_columns, wanted, d, h, w);
      row += std::min(line - w, left);
    }
  }

  // Elements from the output's first.
  int64_t out_at(const Panel& panel, int64_t d, int64_t h, int64_t w) const {
    return c_.out_offset + sample_ * c_.out_batch + (begin_[0] + d) * c_.out_step[0] + (begin_[1] + h) * c_.out_step[1] +
           (begin_[2] + w) * c_.out_step[2] + panel.out;
  }

  // `rows` neighbouring positions of a row of the output.
  void store(const Panel& panel, const float* sums, int64_t rows, int64_t d, int64_t h, int64_t w) {
    const int64_t at = out_at(panel, d, h, w);
    AmxStoreArgs args = {};
    args.sums = sums;
    args.rows = rows;
    args.columns = static_cast<int>((panel.vectors - 1) * amx_columns) + panel.last_columns;
    args.bias = c_.epilogue.bias == nullptr ? nullptr : c_.epilogue.bias + panel.column;
    args.residual = c_.epilogue.residual == nullptr ? nullptr : c_.epilogue.residual + at;
    args.activation = static_cast<int>(c_.epilogue.activation);
    args.slope = c_.epilogue.slope;
    args.out_step = c_.out_step[2];
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
  int64_t ring_ = 0;    // planes of the input held
  int64_t copied_ = 0;  // of the block, so far
  int64_t plane_ = 0;   // halves of one
  std::vector<Run> runs_;
  bool joined_ = false;  // all rows of a plane are one stretch, cut where a block ends
  std::vector<Stretch> stretches_;
  const char* next_ = nullptr;
  int64_t next_bytes_ = 0;  // for each stretch
};

}  // namespace

bool gather_conv_amx(const KernelTable& kernels, GatherConv conv, bool split) {
  const AmxTable& amx = active_amx();
  flatten(conv);
  const Triple block = choose_amx_block(conv, split);
  const std::vector<Panel> panels = split_groups(conv, amx_columns, has_amx(active_isa()) ? 3 : 2);
  AmxWeights weights = {};
  std::atomic<bool> finite = pack_weights(kernels, amx, conv, panels, split, weights);
  const double work = static_cast<double>(multiply_adds(conv)) / amx.speed;
  run_blocks(block_count(conv.batch, out_size(conv), block), panels, static_cast<int64_t>(work),
             [&] { return AmxRunner(amx, conv, block, weights, split, finite); });
  return finite;
}

#else

bool gather_conv_amx(const KernelTable&, GatherConv, bool) { return false; }

#endif

}  // namespace voxlab::cpu
