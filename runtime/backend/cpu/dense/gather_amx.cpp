// The gather driver on AMX: tiles of A are loaded straight from planes of the input as bf16 (planes_amx.h), one row of K
// an output position.
#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "runtime/backend/cpu/dense/blocks.h"
#include "runtime/backend/cpu/dense/conv_moments.h"
#include "runtime/backend/cpu/dense/gather_conv.h"
#include "runtime/backend/cpu/dense/kernels_amx.h"
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

// A sum of fewer does not make up for longer stores of its block.
constexpr int64_t tall_depth_blocks = 16;
// Of sums no longer than this, memory takes the time (0017, thin products).
constexpr int64_t thin_depth_blocks = 16;
constexpr int64_t most_planes = int64_t{32} << 20;  // bytes of scratch

// Each task on a block makes the planes anew.
int64_t tasks_a_thread(bool whole) { return whole ? 1 : 2; }

// All positions in a row: those of a matrix product, or of a kernel of 1.
bool is_matrix(const GatherConv& c) { return c.axis[0].out * c.axis[1].out == 1; }

// In cycles of a core.
class CutCost {
 public:
  CutCost(const GatherConv& conv, bool split, bool slabs) : c_(conv), split_(split) {
    const RunShape shape = run_shape(conv, slabs);
    const int64_t runs = shape.length == 0 ? 0 : weight_rows(conv) / shape.length;
    tiles_of_b_ = runs * shape.depth_blocks() * ceil_div(conv.columns, amx_columns);
    value_bytes_ = half_bytes * (split ? 2 : 1);
  }

  bool b_stays() const { return 3 * b_bytes() < 2 * l2_bytes(); }

  // Planes of the input are made ahead while tiles multiply, so all at once only if B would be read again for each.
  bool whole(const Triple& block, int64_t slices) const {
    return (slices > 1 || (block[0] > 1 && !b_stays())) &&
           product(input_extent(c_, block)) * (c_.channels / slices) * value_bytes_ <= l2_bytes() / 2;
  }

  double operator()(const Triple& block, int64_t slices) const {
    const int64_t panels = ceil_div(c_.columns, amx_block_columns), blocks = block_count(c_.batch, out_size(c_), block);
    const Triple extent = input_extent(c_, block);
    const int64_t plane = extent[1] * extent[2] * c_.channels / slices;
    const int64_t held = blocks > thread_count() ? planes_held(c_) : std::min(planes_held(c_), extent[0]);
    const int64_t a_bytes = held * plane * value_bytes_;
    const bool at_once = whole(block, slices);
    if ((!at_once && slices > 1) || a_bytes > most_planes) return std::numeric_limits<double>::infinity();
    // What comes from beyond the second level: a B that does not fit there, once or for each plane; an A that does not, for
    // each panel; the sums of all panels, with each slice but the first.
    constexpr double far_bytes_a_cycle = 8;
    const int64_t l2 = l2_bytes(), positions = product(block);
    int64_t far = b_stays() ? 0 : b_bytes() * (at_once ? 1 : block[0]);
    if (!at_once && a_bytes > std::max(l2 / 3, l2 * 3 / 5 - b_bytes()))
      far += panels * planes_under(c_) * plane * value_bytes_ * block[0];
    far += 2 * (slices - 1) * c_.columns * size_of(DType::f32) * positions;
    const bool unit = c_.axis[1].stride == 1 && c_.axis[2].stride == 1;
    const int64_t rows = std::min(block[1] * ceil_div(block[2], amx_rows),
                                  unit ? ceil_div((block[1] - 1) * extent[2] + block[2], amx_rows) : block[1] * block[2]);
    const double multiplying = 16.0 * static_cast<double>(tiles_of_b_ * (split_ ? 3 : 1) * block[0] * rows);
    const int64_t groups = panel_groups(blocks, panels, tasks_a_thread(at_once)), rounds = ceil_div(blocks * groups, thread_count());
    // A matrix's rows are converted for each group of panels anew, and all but a thread's first while tiles multiply.
    const double copies = is_matrix(c_) ? static_cast<double>(groups) * (0.5 + 0.5 / static_cast<double>(rounds)) : 1.0;
    const double copying = (c_.in.dtype == DType::bf16 ? 0.4 : 0.8) * copies * static_cast<double>(extent[0] * plane * slices);
    // Rows narrower than the tensors' begin anew in memory, each on a page of its own.
    constexpr double row_cycles = 500;
    const int64_t rows_begun = block[2] == c_.axis[2].out ? 0 : extent[0] * extent[1] + block[0] * block[1];
    const double overhead = 1000.0 * static_cast<double>(panels * block[0] * slices) +
                            static_cast<double>(far) / far_bytes_a_cycle + row_cycles * static_cast<double>(rows_begun) + 2000.0;
    return idle_factor(blocks * groups) * (multiplying + copying + overhead) / static_cast<double>(positions);
  }

 private:
  int64_t b_bytes() const { return tiles_of_b_ * amx_tile * value_bytes_; }

  const GatherConv& c_;
  bool split_;
  int64_t tiles_of_b_, value_bytes_;
};

// Slabs let channels be taken in slices, whose planes fit in the second-level cache where those of all channels do not;
// and taps read lines that are still in the first-level cache.
bool wants_slabs(const GatherConv& c, bool split) {
  const bool cuts = c.channels % amx_depth == 0 && c.channels > amx_depth && weight_rows(c) > c.channels;
  return cuts && !CutCost(c, split, true).b_stays();
}

AmxCut choose_cut(const GatherConv& c, bool split, bool slabs) {
  const CutCost cost(c, split, slabs);
  const int64_t most = slabs ? c.channels / amx_depth : 1;
  AmxCut best = {{}, slabs};
  double best_cost = std::numeric_limits<double>::infinity();
  for (int64_t slices = 1; slices <= most; ++slices) {
    if (most % slices != 0) continue;
    const Triple block = cheapest_block(
        out_size(c), {1, 1, std::min<int64_t>(c.axis[2].out, 16)}, [&](const Triple& tried) { return cost(tried, slices); },
        is_matrix(c) ? amx_rows : 1);
    const double this_cost = cost(block, slices);
    if (slices > 1 && this_cost >= best_cost) continue;
    best_cost = this_cost;
    best = {block, slabs, slices, cost.whole(block, slices), !cost.b_stays()};
  }
  return best;
}

class AmxRunner {
 public:
  // `finite` becomes false when a block's input holds a value that is not; nothing more is then computed.
  AmxRunner(const AmxTable& amx, const GatherConv& conv, const AmxCut& cut, const AmxWeights& weights, bool split,
            std::atomic<bool>& finite, MomentParts& moments)
      : amx_(amx), c_(conv), cut_(cut), planes_(amx, conv, cut, split), weights_(weights), split_(split), finite_(finite),
        shape_(run_shape(conv, cut.slabs)), all_moments_(moments),
        moments_(conv.moments == nullptr ? 0 : static_cast<size_t>(conv.batch * conv.columns)) {
    amx_.begin();
    past_caches_ = depth_blocks_a_column() <= thin_depth_blocks && leaves_caches(conv);
    if (!shape_.all_taps) return;
    made_high_ = half_scratch(Purpose::rows, 2 * most_stretch_rows * amx_depth + most_stretch_rows);
    made_low_ = made_high_ + most_stretch_rows * amx_depth;
    std::fill_n(made_low_ + most_stretch_rows * amx_depth, most_stretch_rows, uint16_t{0});
  }
  ~AmxRunner() {
    amx_.end();
    if (past_caches_) std::atomic_thread_fence(std::memory_order_seq_cst);
    if (c_.moments != nullptr) all_moments_.add(first_block_, std::move(moments_));
  }
  AmxRunner(const AmxRunner&) = delete;
  AmxRunner& operator=(const AmxRunner&) = delete;

  // Plane after plane of the output, so that no more planes of the input are held than one needs and the next; or all at
  // once, slice after slice of the channels.
  void run(int64_t index, const Panel* panels, int64_t panel_count, int64_t ahead) {
    if (!finite_) return;
    if (first_block_ < 0) first_block_ = index;
    for (slice_ = 0; slice_ < cut_.slices; ++slice_) {
      const int64_t visit = index * cut_.slices + slice_;
      planes_.enter(visit, slice_ + 1 < cut_.slices ? visit + 1 : ahead < 0 ? -1 : ahead * cut_.slices);
      begin_ = planes_.begin();
      size_ = planes_.size();
      extent_ = planes_.extent();
      const int64_t together = cut_.whole ? size_[0] : 1;
      for (int64_t d = 0; d < size_[0]; d += together)
        if (!run_planes(panels, panel_count, d, together)) return;
    }
  }

 private:
  // Of K, on average: groups of columns leave taps out.
  int64_t depth_blocks_a_column() const {
    int64_t taps = 0;
    for (const auto& kernel : c_.group_kernel) {
      int64_t of_group = 1;
      for (const std::vector<int64_t>& axis : kernel) of_group *= std::ssize(axis) - std::count(axis.begin(), axis.end(), -1);
      taps += of_group;
    }
    return c_.group_kernel.empty() ? weights_.depth_blocks : ceil_div(taps * c_.channels, std::ssize(c_.group_kernel) * amx_depth);
  }

  bool run_planes(const Panel* panels, int64_t panel_count, int64_t d, int64_t count) {
    const int64_t stride = c_.axis[0].stride;
    if (!planes_.need((d + count - 1) * stride + planes_under(c_))) {
      finite_ = false;
      return false;
    }
    tall_ = !split_ && weights_.depth_blocks >= tall_depth_blocks;
    for (int64_t p = 0; p < panel_count; ++p) tall_ &= panels[p].vectors > 1;
    stretch_rows_ = tall_ ? most_stretch_rows : most_amx_block_rows;
    // Storing rows from memory for more than about half a microsecond costs the next store of a tile (0017).
    if (past_caches_ && panels[0].vectors > 1) stretch_rows_ = amx_block_rows(2, tall_);
    plan_parts(panels, panel_count);
    runs_.clear();
    ranges_.clear();
    stretches_.clear();
    for (int64_t i = d; i < d + count; ++i) {
      list_runs(i);
      list_stretches(i, i - d);
    }
    const auto kept = static_cast<int64_t>(stretches_.size()) * (cut_.slices == 1 ? 1 : panel_count);
    sums_ = scratch(Purpose::partial, (parts_ * cut_.slices == 1 ? 1 : kept) * stretch_sums);
    planes_.plan_ahead(d * stride, blocks_of_planes(panels, panel_count));
    run_panels(panels, panel_count);
    return true;
  }

  // Those of a plane of the output, by group of columns; kernel rows that meet no input are left out.
  void list_runs(int64_t d) {
    for (int64_t group = 0; group < run_groups(); ++group) list_runs(d, group);
  }

  int64_t run_groups() const { return std::max<int64_t>(1, std::ssize(c_.group_kernel)); }

  bool has_tap(int64_t group, size_t axis, size_t tap) const {
    return c_.group_kernel.empty() || c_.group_kernel[static_cast<size_t>(group)][axis][tap] >= 0;
  }

  void list_runs(int64_t d, int64_t group) {
    const GatherAxis& ad = c_.axis[0];
    const GatherAxis& ah = c_.axis[1];
    const std::vector<int64_t>& tw = c_.axis[2].taps;
    const int64_t position = planes_.position(), rows = kernel_rows();
    for (int64_t part = 0; part < parts_; ++part) {
      ranges_.push_back(static_cast<int64_t>(runs_.size()));
      for (int64_t i = slab_rows() * part / parts_; i < slab_rows() * (part + 1) / parts_ && !tw.empty(); ++i) {
        const int64_t slab = i / rows, row = i % rows;
        const size_t d_tap = static_cast<size_t>(row) / ah.taps.size(), h_tap = static_cast<size_t>(row) % ah.taps.size();
        if (!has_tap(group, 0, d_tap) || !has_tap(group, 1, h_tap)) continue;
        const int64_t tap_d = ad.taps[d_tap], tap_h = ah.taps[h_tap];
        const int64_t at_d = (begin_[0] + d) * ad.stride + tap_d, low = begin_[1] * ah.stride + tap_h;
        if (at_d < 0 || at_d >= ad.in || low + (size_[1] - 1) * ah.stride < 0 || low >= ah.in) {
          if (shape_.all_taps) runs_.push_back({outside, 0});  // other taps keep their places
          continue;
        }
        const int64_t first = planes_.plane_at(d * ad.stride + tap_d - ad.taps[0]) + slab * planes_.slab_step() +
                              (tap_h - ah.taps[0]) * extent_[2] * position;
        for (int64_t k = 0; k < shape_.runs_a_row; ++k) {
          if (!has_tap(group, 2, static_cast<size_t>(k))) continue;
          const int64_t tap = shape_.runs_a_row == 1 ? 0 : tw[static_cast<size_t>(k)] - tw[0];
          runs_.push_back({(first + tap * position) * half_bytes,
                           ((slice_ * slab_rows() + i) * shape_.runs_a_row + k) * shape_.depth_blocks()});
        }
      }
    }
    ranges_.push_back(static_cast<int64_t>(runs_.size()));
  }

  int64_t kernel_rows() const { return static_cast<int64_t>(c_.axis[0].taps.size() * c_.axis[1].taps.size()); }
  int64_t slab_rows() const { return planes_.slabs() * kernel_rows(); }  // of a slice

  // Neighbouring positions of a plane of the output.
  struct Stretch {
    int64_t a;       // bytes from the plane's first input
    int64_t rows;    // of A
    int64_t d, h, w;
    int64_t ranges;  // of its plane's runs: where those of each group's parts begin
  };

  // Rows of the output, or with stride 1 often better the plane as one stretch, whose rows of A lie one input row apart
  // and whose tiles waste the border between them.
  void list_stretches(int64_t d, int64_t plane) {
    const bool unit = c_.axis[1].stride == 1 && c_.axis[2].stride == 1;
    const int64_t width = size_[2];
    const int64_t height = size_[1];
    const auto tiles = [](int64_t rows) { return ceil_div(rows, amx_rows); };
    const int64_t whole = (height - 1) * extent_[2] + width;
    joined_ = unit && 8 * tiles(whole) < 9 * height * tiles(width);
    const int64_t position = planes_.position() * half_bytes;
    for (int64_t h = 0; h < (joined_ ? 1 : height); ++h) {
      const int64_t rows = joined_ ? whole : width;
      for (int64_t m = 0; m < rows; m += stretch_rows_) {
        const int64_t a = (h * c_.axis[1].stride * extent_[2] + m * c_.axis[2].stride) * position;
        const int64_t at_h = joined_ ? m / extent_[2] : h;
        stretches_.push_back({a, std::min(stretch_rows_, rows - m), d, at_h, m - (joined_ ? at_h * extent_[2] : 0),
                              plane * run_groups() * (parts_ + 1)});
      }
    }
  }

  int64_t blocks_of_planes(const Panel* panels, int64_t panel_count) const {
    int64_t blocks = 0;
    for (int64_t p = 0; p < panel_count; ++p) blocks += blocks_under(panels[p]);
    return blocks * parts_;
  }
  int64_t blocks_under(const Panel& panel) const {
    int64_t blocks = 0;
    for (const Stretch& stretch : stretches_) blocks += ceil_div(stretch.rows, amx_block_rows(panel.vectors, tall_));
    return blocks;
  }

  // A panel of B that would not stay in the second-level cache while stretch after stretch passes is taken kernel row by
  // kernel row, or several at a time; sums of all stretches wait in memory.
  void plan_parts(const Panel* panels, int64_t panel_count) {
    int64_t tiles = 0;
    for (int64_t p = 0; p < panel_count; ++p) tiles = std::max<int64_t>(tiles, panels[p].vectors);
    const int64_t bytes = tiles * weights_.depth_blocks / cut_.slices * amx_tile * half_bytes * (split_ ? 2 : 1);
    const bool one_stretch = shape_.all_taps || (!cut_.whole && (size_[1] - 1) * extent_[2] + size_[2] <= stretch_rows_);
    parts_ = one_stretch ? 1 : std::clamp<int64_t>(ceil_div(bytes, l2_bytes() / 3), 1, std::max<int64_t>(slab_rows(), 1));
  }

  // What passes over the other in the inner loop should stay in the first-level cache: a stretch of A if all of B is
  // small, else one panel of B.
  void run_panels(const Panel* panels, int64_t panel_count) {
    constexpr int64_t small = int64_t{64} << 10;
    int64_t tiles = 0;
    for (int64_t p = 0; p < panel_count; ++p) tiles += panels[p].vectors;
    const bool small_b = tiles * weights_.depth_blocks * amx_tile * half_bytes * (split_ ? 2 : 1) <= small;
    if (small_b && parts_ * cut_.slices == 1) {
      for (const Stretch& stretch : stretches_)
        for (int64_t p = 0; p < panel_count; ++p) run_stretch(panels[p], stretch, 0, sums_);
      return;
    }
    float* first = sums_;
    for (int64_t p = 0; p < panel_count; ++p) {
      for (int64_t part = 0; part < parts_; ++part) {
        float* sums = first;
        plan_b_fetch(panels, panel_count, p, part);
        for (const Stretch& stretch : stretches_) {
          run_stretch(panels[p], stretch, part, sums);
          if (parts_ * cut_.slices > 1) sums += stretch_sums;
        }
      }
      if (cut_.slices > 1) first += static_cast<int64_t>(stretches_.size()) * stretch_sums;
    }
  }

  // Of tiles of B that do not stay in the second-level cache, those that come next are brought meanwhile.
  void plan_b_fetch(const Panel* panels, int64_t panel_count, int64_t p, int64_t part) {
    b_next_ = nullptr;
    if (!cut_.far_b) return;
    const int64_t blocks = blocks_under(panels[p]);
    int64_t slice = slice_;
    if (++part == parts_) {
      part = 0;
      if (++p == panel_count) {
        p = 0;
        if (++slice == cut_.slices) return;
      }
    }
    const int64_t row_tiles = shape_.runs_a_row * shape_.depth_blocks() * panels[p].vectors, rows = slab_rows();
    const int64_t begin = rows * part / parts_, end = rows * (part + 1) / parts_;
    b_next_ = reinterpret_cast<const char*>(weights_.panel(panels[p], split_).high + (slice * rows + begin) * row_tiles * amx_tile);
    b_share_ = ceil_div((end - begin) * row_tiles * amx_tile * half_bytes, blocks * 64) * 64;
  }

  static constexpr int64_t most_stretch_rows = 6 * amx_rows;  // a multiple of two and of three tiles
  static constexpr int64_t outside = INT64_MIN;               // in place of where a kernel row's input lies
  static constexpr int64_t stretch_sums = most_stretch_rows * amx_block_columns;

  // Its tiles of A of all taps: a row of `kernel_rows` for each (tap D, tap H), or zeros.
  void make_rows(const Stretch& stretch, const Run* kernel_rows, const uint16_t* planes, uint16_t* to) const {
    const auto width = static_cast<int64_t>(c_.axis[2].taps.size());
    std::array<const void*, amx_strip + amx_depth> at;
    at.fill(made_low_ + most_stretch_rows * amx_depth);  // zeros
    for (int64_t k = 0; k < shape_.length; ++k) {
      const int64_t row = kernel_rows[k / width].a_bytes;
      if (row != outside) at[static_cast<size_t>(k)] = planes + (stretch.a + row) / half_bytes + k % width;
    }
    for (int64_t row = 0; row < stretch.rows; row += amx_rows)
      amx_.turn_strip({.at = at.data(), .bf16 = true, .offset = row, .columns = amx_rows, .even = to + row * amx_depth, .odd = nullptr, .low = 0});
  }

  void run_stretch(const Panel& panel, const Stretch& stretch, int64_t part, float* sums) {
    AmxBlockArgs args = {};
    args.a_step = c_.axis[2].stride * planes_.position() * half_bytes;
    const int64_t group = c_.group_kernel.empty() ? 0 : panel.group;
    const int64_t* const range = ranges_.data() + stretch.ranges + group * (parts_ + 1) + part;
    args.runs = runs_.data() + range[0];
    args.run_count = range[1] - range[0];
    AmxParts a = planes_.parts();
    int64_t first = stretch.a;  // bytes
    const Run all_taps = {0, 0};
    if (shape_.all_taps) {
      make_rows(stretch, args.runs, a.high, made_high_);
      if (split_) make_rows(stretch, args.runs, a.low, made_low_);
      a = {made_high_, made_low_};
      first = 0;
      args.a_step = amx_depth * half_bytes;
      args.runs = &all_taps;
      args.run_count = 1;
    }
    args.accumulate = part + slice_ > 0;
    const bool last = part + 1 == parts_ && slice_ + 1 == cut_.slices;
    args.depth_blocks = shape_.depth_blocks();
    args.last_pairs = ceil_div(shape_.length - (args.depth_blocks - 1) * amx_depth, 2);
    args.b = weights_.panel(panel, split_);
    args.column_tiles = panel.vectors;
    // Close enough where a stretch runs on over the border. Of an output past the caches only the residual is read.
    const int64_t out_bytes = past_caches_ ? residual_bytes() : size_of(c_.out.dtype);
    const char* const lines = past_caches_ ? residual() : static_cast<const char*>(c_.out.data);
    const char* out = lines == nullptr ? nullptr : lines + out_bytes * out_at(panel, stretch.d, stretch.h, stretch.w);
    args.out_step = out_bytes * c_.out_step[2];
    args.out_lines = static_cast<int>(ceil_div(panel.vectors * amx_columns * out_bytes, cache_line_halves * half_bytes));
    const int64_t block_rows = amx_block_rows(panel.vectors, tall_);
    for (int64_t row = 0; row < stretch.rows; row += block_rows) {
      const int64_t offset = (first + row * args.a_step) / half_bytes;
      args.a = {a.high + offset, split_ ? a.low + offset : nullptr};
      args.rows = std::min(block_rows, stretch.rows - row);
      args.c = sums + row * amx_block_columns;
      args.out = last && out != nullptr ? out + row * args.out_step : nullptr;
      planes_.share(args);
      if (b_next_ != nullptr) {
        args.next = b_next_;
        args.next_bytes = b_share_;
        args.next_low = split_ ? weights_.low * half_bytes : 0;
        b_next_ += b_share_;
      }
      amx_.block(args);
    }
    if (last) store_stretch(panel, sums, stretch);
  }

  void store_stretch(const Panel& panel, const float* sums, const Stretch& stretch) {
    int64_t h = stretch.h, w = stretch.w;
    for (int64_t row = 0; row < stretch.rows; ++h, w = 0) {
      const int64_t line = joined_ ? extent_[2] : size_[2];  // what is beyond size_ belongs to the border
      const int64_t left = stretch.rows - row;
      const int64_t wanted = std::min(size_[2] - w, left);
      if (wanted > 0) store(panel, sums + row * amx_block_columns, wanted, stretch.d, h, w);
      row += std::min(line - w, left);
    }
  }

  const char* residual() const {
    const Epilogue& e = c_.epilogue;
    return e.residual != nullptr ? reinterpret_cast<const char*>(e.residual) : reinterpret_cast<const char*>(e.residual_bf16);
  }
  int64_t residual_bytes() const { return size_of(c_.epilogue.residual != nullptr ? DType::f32 : DType::bf16); }

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
    args.past_caches = past_caches_ && panel.out * size_of(c_.out.dtype) % (cache_line_halves * half_bytes) == 0;
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
    if (!moments_.count_more(first, args.columns, args.rows, args)) return;
    for (int i = 0; i < args.columns; ++i)
      moments_.pivot[first + static_cast<size_t>(i)] = args.sums[i] + (args.bias == nullptr ? 0.0F : args.bias[i]);
  }

  const AmxTable& amx_;
  const GatherConv& c_;
  AmxCut cut_;
  AmxPlanes planes_;
  AmxWeights weights_;
  bool split_;
  std::atomic<bool>& finite_;
  RunShape shape_;
  Triple begin_ = {};
  Triple size_ = {};
  Triple extent_ = {};
  int64_t slice_ = 0;
  bool past_caches_ = false;
  bool tall_ = false;
  int64_t stretch_rows_ = 0;
  const char* b_next_ = nullptr;
  int64_t b_share_ = 0;  // bytes for each block of tiles
  std::vector<Run> runs_;
  std::vector<int64_t> ranges_;
  bool joined_ = false;  // all rows of a plane are one stretch, cut where a block ends
  std::vector<Stretch> stretches_;
  uint16_t* made_high_ = nullptr;  // a stretch's tiles of A, where they are made of all taps; zeros lie behind both parts
  uint16_t* made_low_ = nullptr;
  int64_t parts_ = 1;      // of the kernel's rows
  float* sums_ = nullptr;  // of one stretch; with several parts of all, with several slices of all panels'
  MomentParts& all_moments_;
  MomentSums moments_;
  int64_t first_block_ = -1;
};

// In the time in which a core reads a byte it makes about this many f32 multiply-adds.
constexpr double adds_a_byte = 6;

int64_t bytes_moved(const GatherConv& c, bool split) {
  const auto positions = [&](int64_t GatherAxis::*extent) {
    return c.batch * c.axis[0].*extent * c.axis[1].*extent * c.axis[2].*extent;
  };
  const int64_t weight_bytes = c.weights.tiles == nullptr ? size_of(DType::f32) : half_bytes * (split ? 2 : 1);
  return positions(&GatherAxis::in) * c.channels * size_of(c.in.dtype) + positions(&GatherAxis::out) * c.columns * size_of(c.out.dtype) +
         weight_rows(c) * c.columns * weight_bytes;
}

}  // namespace

bool keep_tiles(const KernelTable& kernels, GatherConv conv, const float* first_weight, bool split, KeptWeights& to) {
  flatten(conv);
  const std::vector<Panel> panels = weight_panels(conv);
  const RunShape shape = run_shape(conv, wants_slabs(conv, split));
  KeptWeights::Gather& kept =
      to.gathers.emplace_back(packed_halves(conv, shape, panels, split) * half_bytes, conv, split, conv.weights.data - first_weight);
  kept.conv.weights.data = nullptr;
  auto* memory = reinterpret_cast<uint16_t*>(kept.memory.data());
  return pack_weights(kernels, active_amx(), conv, shape, panels, split, memory, kept.tiles);
}

bool gather_conv_amx(const KernelTable& kernels, GatherConv conv, bool split) {
  const AmxTable& amx = active_amx();
  flatten(conv);
  const std::vector<Panel> panels = weight_panels(conv);
  AmxWeights weights = {};
  std::atomic<bool> finite = true;
  if (conv.weights.tiles != nullptr) {
    weights = *conv.weights.tiles;
  } else {
    const RunShape shape = run_shape(conv, wants_slabs(conv, split));
    uint16_t* memory = half_scratch(Purpose::weights, packed_halves(conv, shape, panels, split));
    finite = pack_weights(kernels, amx, conv, shape, panels, split, memory, weights);
  }
  const AmxCut cut = choose_cut(conv, split, weights.slabs);
  const double work = static_cast<double>(multiply_adds(conv)) / amx.speed + adds_a_byte * static_cast<double>(bytes_moved(conv, split));
  MomentParts moments;
  run_blocks(block_count(conv.batch, out_size(conv), cut.block), panels, static_cast<int64_t>(work),
             [&] { return AmxRunner(amx, conv, cut, weights, split, finite, moments); }, tasks_a_thread(cut.whole));
  if (conv.moments != nullptr && finite) moments.write(conv.moments);
  return finite;
}

#else

bool gather_conv_amx(const KernelTable&, GatherConv, bool) { return false; }
bool keep_tiles(const KernelTable&, GatherConv, const float*, bool, KeptWeights&) { return false; }

#endif

}  // namespace voxlab::cpu
