// The gather driver on AMX: tiles of A are loaded straight from planes of the input as bf16 (planes_amx.h), one row of K
// an output position.
#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "runtime/backend/cpu/dense/blocks.h"
#include "runtime/backend/cpu/dense/gather_conv.h"
#include "runtime/backend/cpu/dense/kernels_amx.h"
#include "runtime/backend/cpu/dense/moments_amx.h"
#include "runtime/backend/cpu/dense/planes_amx.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/dense/weights_amx.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {

#if defined(__x86_64__)

namespace {

constexpr int64_t half_bytes = sizeof(uint16_t);
constexpr int64_t cache_line_halves = 32;
using Triple = std::array<int64_t, 3>;

constexpr int64_t most_planes = int64_t{32} << 20;  // bytes of scratch

// In cycles of a core.
Triple choose_amx_block(const GatherConv& c, bool split) {
  const int64_t value_bytes = half_bytes * (split ? 2 : 1);
  const RunShape shape = run_shape(c);
  const auto kernel_rows = static_cast<int64_t>(c.axis[0].taps.size() * c.axis[1].taps.size());
  const int64_t tiles_of_b = kernel_rows * shape.runs_a_row * shape.depth_blocks() * ceil_div(c.columns, amx_columns);
  const int64_t b_bytes = tiles_of_b * amx_tile * value_bytes, l2 = l2_bytes();
  const int64_t budget = std::max(l2 / 3, l2 * 3 / 5 - b_bytes);
  const double products = static_cast<double>(tiles_of_b * (split ? 3 : 1));
  // What comes from beyond the second level in every block: a B that does not fit there; an A that does not, for each panel.
  constexpr double far_bytes_a_cycle = 8;
  const double b_cycles = 2 * b_bytes < l2 ? 0 : static_cast<double>(b_bytes) / far_bytes_a_cycle;
  const auto panels = static_cast<double>(ceil_div(c.columns, amx_block_columns));
  const bool unit = c.axis[1].stride == 1 && c.axis[2].stride == 1;
  return cheapest_block(out_size(c), {1, 1, std::min<int64_t>(c.axis[2].out, 16)}, [&](const Triple& block) {
    const Triple extent = input_extent(c, block);
    const int64_t plane = extent[1] * extent[2] * c.channels;
    const int64_t blocks = block_count(c.batch, out_size(c), block);
    const int64_t held = blocks > thread_count() ? planes_held(c) : std::min(planes_held(c), extent[0]);
    const int64_t a_bytes = held * plane * value_bytes;
    if (a_bytes > most_planes) return std::numeric_limits<double>::infinity();
    const double a_cycles = a_bytes > budget ? panels * static_cast<double>(planes_under(c) * plane * value_bytes) / far_bytes_a_cycle : 0;
    const double positions = static_cast<double>(product(block));
    const int64_t rows = std::min(block[1] * ceil_div(block[2], amx_rows),
                                  unit ? ceil_div((block[1] - 1) * extent[2] + block[2], amx_rows) : block[1] * block[2]);
    const double multiplying = 16.0 * products * static_cast<double>(block[0] * rows);
    const double copying = (c.in.dtype == DType::bf16 ? 0.4 : 0.8) * static_cast<double>(extent[0] * plane);
    // Rows narrower than the tensors' begin anew in memory, each on a page of its own.
    constexpr double row_cycles = 500;
    const double rows_begun = block[2] == c.axis[2].out ? 0 : static_cast<double>(extent[0] * extent[1] + block[0] * block[1]);
    const double overhead =
        (1000.0 * panels + a_cycles + b_cycles) * static_cast<double>(block[0]) + row_cycles * rows_begun + 2000.0;
    return idle_factor(blocks * panel_groups(blocks, static_cast<int64_t>(panels))) * (multiplying + copying + overhead) / positions;
  });
}

class AmxRunner {
 public:
  // `finite` becomes false when a block's input holds a value that is not; nothing more is then computed.
  AmxRunner(const AmxTable& amx, const GatherConv& conv, const Triple& block, const AmxWeights& weights, bool split,
            std::atomic<bool>& finite, MomentParts& moments)
      : amx_(amx), c_(conv), planes_(amx, conv, block, split), weights_(weights), split_(split), finite_(finite),
        shape_(run_shape(conv)), all_moments_(moments),
        moments_(conv.moments == nullptr ? 0 : static_cast<size_t>(conv.batch * conv.columns)) {
    amx_.begin();
  }
  ~AmxRunner() {
    amx_.end();
    if (c_.moments != nullptr) all_moments_.add(first_block_, std::move(moments_));
  }
  AmxRunner(const AmxRunner&) = delete;
  AmxRunner& operator=(const AmxRunner&) = delete;

  // Plane after plane of the output, so that no more planes of the input are held than one needs and the next.
  void run(int64_t index, const Panel* panels, int64_t panel_count, int64_t ahead) {
    if (!finite_) return;
    if (first_block_ < 0) first_block_ = index;
    planes_.enter(index, ahead);
    begin_ = planes_.begin();
    size_ = planes_.size();
    extent_ = planes_.extent();
    list_stretches();
    for (int64_t d = 0; d < size_[0]; ++d) {
      const int64_t first = d * c_.axis[0].stride;
      if (!planes_.need(first + planes_under(c_))) {
        finite_ = false;
        return;
      }
      list_runs(d);
      plan_parts(panels, panel_count);
      planes_.plan_ahead(first, blocks_of_plane(panels, panel_count));
      run_plane(panels, panel_count, d);
    }
  }

 private:
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
      const int64_t plane = planes_.plane_at(d * ad.stride + ad.taps[i] - ad.taps[0]);
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

  int64_t blocks_of_plane(const Panel* panels, int64_t panel_count) const {
    int64_t blocks = 0;
    for (int64_t p = 0; p < panel_count; ++p)
      for (const Stretch& stretch : stretches_) blocks += ceil_div(stretch.rows, amx_block_rows(panels[p].vectors));
    return blocks * parts_;
  }

  // A panel of B that would not stay in the second-level cache while stretch after stretch passes is taken run by run, or
  // several at a time; sums of all stretches wait in memory.
  void plan_parts(const Panel* panels, int64_t panel_count) {
    int64_t tiles = 0;
    for (int64_t p = 0; p < panel_count; ++p) tiles = std::max<int64_t>(tiles, panels[p].vectors);
    const int64_t bytes = tiles * weights_.depth_blocks * amx_tile * half_bytes * (split_ ? 2 : 1);
    const auto runs = static_cast<int64_t>(runs_.size()), stretches = static_cast<int64_t>(stretches_.size());
    parts_ = stretches == 1 ? 1 : std::clamp<int64_t>(ceil_div(bytes, l2_bytes() / 3), 1, std::max<int64_t>(runs, 1));
    sums_ = scratch(Purpose::partial, (parts_ == 1 ? 1 : stretches) * stretch_sums);
  }

  // What passes over the other in the inner loop should stay in the first-level cache: a stretch of A if all of B is
  // small, else one panel of B.
  void run_plane(const Panel* panels, int64_t panel_count, int64_t d) {
    constexpr int64_t small = int64_t{64} << 10;
    int64_t tiles = 0;
    for (int64_t p = 0; p < panel_count; ++p) tiles += panels[p].vectors;
    const bool small_b = tiles * weights_.depth_blocks * amx_tile * half_bytes * (split_ ? 2 : 1) <= small;
    if (small_b && parts_ == 1) {
      for (const Stretch& stretch : stretches_)
        for (int64_t p = 0; p < panel_count; ++p) run_stretch(panels[p], d, stretch, 0, sums_);
    } else {
      for (int64_t p = 0; p < panel_count; ++p)
        for (int64_t part = 0; part < parts_; ++part) {
          float* sums = sums_;
          for (const Stretch& stretch : stretches_) {
            run_stretch(panels[p], d, stretch, part, sums);
            if (parts_ > 1) sums += stretch_sums;
          }
        }
    }
  }

  static constexpr int64_t stretch_sums = most_amx_block_rows * amx_block_columns;

  void run_stretch(const Panel& panel, int64_t d, const Stretch& stretch, int64_t part, float* sums) {
    AmxBlockArgs args = {};
    args.a_step = c_.axis[2].stride * c_.channels * half_bytes;
    const auto runs = static_cast<int64_t>(runs_.size());
    args.runs = runs_.data() + runs * part / parts_;
    args.run_count = runs * (part + 1) / parts_ - runs * part / parts_;
    args.accumulate = part > 0;
    args.depth_blocks = shape_.depth_blocks();
    args.last_pairs = ceil_div(shape_.length - (args.depth_blocks - 1) * amx_depth, 2);
    args.b = weights_.panel(panel, split_);
    args.column_tiles = panel.vectors;
    // Close enough where a stretch runs on over the border.
    const int64_t out_bytes = size_of(c_.out.dtype);
    const char* out = static_cast<const char*>(c_.out.data) + out_bytes * out_at(panel, d, stretch.h, stretch.w);
    args.out_step = out_bytes * c_.out_step[2];
    args.out_lines = static_cast<int>(ceil_div(panel.vectors * amx_columns * out_bytes, cache_line_halves * half_bytes));
    const int64_t block_rows = amx_block_rows(panel.vectors);
    for (int64_t row = 0; row < stretch.rows; row += block_rows) {
      const int64_t offset = (stretch.a + row * args.a_step) / half_bytes;
      args.a = {planes_.parts().high + offset, split_ ? planes_.parts().low + offset : nullptr};
      args.rows = std::min(block_rows, stretch.rows - row);
      args.c = sums + row * amx_block_columns;
      args.out = part + 1 == parts_ ? out + row * args.out_step : nullptr;
      planes_.share(args);
      amx_.block(args);
    }
    if (part + 1 == parts_) store_stretch(panel, sums, d, stretch);
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
    return c_.out_offset + planes_.sample() * c_.out_batch + (begin_[0] + d) * c_.out_step[0] + (begin_[1] + h) * c_.out_step[1] +
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
    args.residual_bf16 = c_.epilogue.residual_bf16 == nullptr ? nullptr : c_.epilogue.residual_bf16 + at;
    args.activation = static_cast<int>(c_.epilogue.activation);
    args.slope = c_.epilogue.slope;
    args.out_step = c_.out_step[2];
    if (c_.out.dtype == DType::bf16) {
      args.out_bf16 = static_cast<uint16_t*>(c_.out.data) + at;
    } else {
      args.out = static_cast<float*>(c_.out.data) + at;
    }
    if (c_.moments != nullptr) add_moments(panel, args);
    amx_.store(args);
  }

  void add_moments(const Panel& panel, AmxStoreArgs& args) {
    const auto first = static_cast<size_t>(planes_.sample() * c_.columns + panel.column);
    const bool begun = moments_.count[first] > 0;
    for (int i = 0; i < args.columns; ++i) {
      const size_t at = first + static_cast<size_t>(i);
      if (!begun) moments_.pivot[at] = args.sums[i] + (args.bias == nullptr ? 0.0F : args.bias[i]);
      moments_.count[at] += static_cast<double>(args.rows);
    }
    args.pivot = moments_.pivot.data() + first;
    args.sum = moments_.sum.data() + first;
    args.square = moments_.square.data() + first;
  }

  const AmxTable& amx_;
  const GatherConv& c_;
  AmxPlanes planes_;
  AmxWeights weights_;
  bool split_;
  std::atomic<bool>& finite_;
  RunShape shape_;
  Triple begin_ = {};
  Triple size_ = {};
  Triple extent_ = {};
  std::vector<Run> runs_;
  bool joined_ = false;  // all rows of a plane are one stretch, cut where a block ends
  std::vector<Stretch> stretches_;
  int64_t parts_ = 1;      // of the runs
  float* sums_ = nullptr;  // of one stretch, or with several parts of all
  MomentParts& all_moments_;
  MomentSums moments_;
  int64_t first_block_ = -1;
};

std::vector<Panel> panels_of(const GatherConv& conv) { return split_groups(conv, amx_columns, has_amx(active_isa()) ? 3 : 2); }

}  // namespace

bool keep_tiles(const KernelTable& kernels, GatherConv conv, bool split, KeptWeights& to) {
  flatten(conv);
  const std::vector<Panel> panels = panels_of(conv);
  const Storage& block = to.memory.emplace_back(packed_halves(conv, panels, split) * half_bytes, Device::cpu);
  auto* memory = reinterpret_cast<uint16_t*>(block.data());
  return pack_weights(kernels, active_amx(), conv, panels, split, memory, to.tiles.emplace_back());
}

bool gather_conv_amx(const KernelTable& kernels, GatherConv conv, bool split) {
  const AmxTable& amx = active_amx();
  flatten(conv);
  const Triple block = choose_amx_block(conv, split);
  const std::vector<Panel> panels = panels_of(conv);
  AmxWeights weights = {};
  std::atomic<bool> finite = true;
  if (conv.weights.tiles != nullptr) {
    weights = *conv.weights.tiles;
  } else {
    uint16_t* memory = half_scratch(Purpose::weights, packed_halves(conv, panels, split));
    finite = pack_weights(kernels, amx, conv, panels, split, memory, weights);
  }
  const double work = static_cast<double>(multiply_adds(conv)) / amx.speed;
  MomentParts moments;
  run_blocks(block_count(conv.batch, out_size(conv), block), panels, static_cast<int64_t>(work),
             [&] { return AmxRunner(amx, conv, block, weights, split, finite, moments); });
  if (conv.moments != nullptr && finite) moments.write(conv.moments);
  return finite;
}

#else

bool gather_conv_amx(const KernelTable&, GatherConv, bool) { return false; }
bool keep_tiles(const KernelTable&, GatherConv, bool, KeptWeights&) { return false; }

#endif

}  // namespace voxlab::cpu
