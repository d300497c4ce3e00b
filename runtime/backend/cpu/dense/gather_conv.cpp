// Cuts the output into blocks whose input fits the second-level cache, copies that input once with
// its zero border, and runs matrix tiles over it: one kernel row of (taps x channels) is contiguous
// there.
#include "runtime/backend/cpu/dense/gather_conv.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "runtime/backend/cpu/dense/blocks.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {
namespace {

constexpr int64_t float_bytes = sizeof(float);
using Triple = std::array<int64_t, 3>;

bool stays_inside(const GatherAxis& a) {
  return a.taps.empty() || (a.taps.front() >= 0 && (a.out - 1) * a.stride + a.taps.back() < a.in);
}

int64_t span(const GatherAxis& a) {
  return a.taps.empty() ? 1 : a.taps.back() - a.taps.front() + 1;
}

int64_t first_tap(const GatherAxis& a) { return a.taps.empty() ? 0 : a.taps.front(); }

// Each output reads the same input position: such axes can be merged.
bool identity(const GatherAxis& a) {
  return a.in == a.out && a.stride == 1 && a.taps.size() == 1 && a.taps[0] == 0;
}

bool merge_into_width(GatherConv& c, int outer) {
  GatherAxis& a = c.axis[outer];
  GatherAxis& w = c.axis[2];
  if (!identity(a)) return false;
  if (a.out == 1) return true;
  if (!identity(w) || c.out_step[outer] != w.out * c.out_step[2]) return false;
  w.in = w.out = w.out * a.out;
  a = GatherAxis{};
  return true;
}

// How a run gets its weights: in place, from one packed copy shared by all threads, or, when few
// blocks use them, packed panel by panel into the cache of the thread that needs it next.
enum class Packing : uint8_t { none, shared, per_thread };

Packing choose_packing(const GatherConv& c, int64_t blocks, int64_t panels) {
  constexpr int64_t far_rows =
      128;  // floats: further apart, rows miss the TLB and collide in cache
  const bool in_place = !c.weights.transposed && (c.weights.pitch < far_rows || panels == 1);
  if (in_place) return Packing::none;
  return blocks <= 2 * thread_count() ? Packing::per_thread : Packing::shared;
}

// Where the rows of one output block lie in A and in the output, pair by pair.
struct RowPairs {
  std::vector<int64_t> a_bytes;               // of the first row of each pair
  std::vector<std::array<int64_t, 2>> out;    // offset of both rows in the block, or dropped_row
  std::vector<std::array<int64_t, 2>> place;  // (D, H) inside the block
};

constexpr int64_t dropped_row = -1;

// Runs a tile whose sum may be long in parts.
void sum_runs(const TileArgs& whole, TileFn tile) {
  const int64_t part = runs_of_a_part(whole.k);
  if (whole.run_count <= part) return tile(whole);
  TileArgs args = whole;
  for (int64_t run = 0; run < whole.run_count; run += part) {
    args.runs = whole.runs + run;
    args.run_count = std::min(part, whole.run_count - run);
    args.accumulate = run > 0;
    args.bias = run > 0 ? nullptr : whole.bias;
    const bool last = run + part >= whole.run_count;
    args.activation = last ? whole.activation : 0;
    args.residual = last ? whole.residual : nullptr;
    tile(args);
  }
}

// Computes output blocks; one object a thread.
class BlockRunner {
 public:
  // `packed` holds every panel for Packing::shared.
  BlockRunner(const KernelTable& kernels, const GatherConv& conv, const Triple& block,
              Packing packing, const float* packed)
      : kernels_(kernels), conv_(conv), block_(block), packing_(packing), packed_(packed) {
    direct_ = std::all_of(conv.axis.begin(), conv.axis.end(), stays_inside);
    const GatherAxis& w = conv.axis[2];
    row_tiles_ = conv.columns <= kernels.width && w.stride == 1 && consecutive(w.taps) &&
                 static_cast<int>(w.taps.size()) == row_taps;
    past_caches_ = weight_rows(conv) == conv.channels && conv.epilogue.activation == Activation::none && leaves_caches(conv);
  }

  ~BlockRunner() {
    if (past_caches_) std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  BlockRunner(const BlockRunner&) = delete;
  BlockRunner& operator=(const BlockRunner&) = delete;

  void run(int64_t index, const Panel* panels, int64_t panel_count) {
    if (index != current_) {
      current_ = index;
      locate(index);
      place_input();
      if (size_ != listed_ && !row_tiles_) list_pairs();
      listed_ = size_;
      list_runs({0, 0}, {size_[0] - 1, size_[1] - 1}, true);
      all_rows_alike_ = direct_ || whole_block_inside();
    }
    for (int64_t p = 0; p < panel_count; ++p) {
      if (row_tiles_) {
        run_rows(panels[p]);
      } else {
        run_panel(panels[p]);
      }
    }
  }

 private:
  void locate(int64_t index) {
    const BlockPlace place = place_block(out_size(conv_), block_, index);
    sample_ = place.sample;
    begin_ = place.begin;
    size_ = place.size;
  }

  // Points a_ at the input position of (first output, first tap), copied with zeros where needed.
  void place_input() {
    const Triple extent = {conv_.axis[0].in, conv_.axis[1].in, conv_.axis[2].in};
    const float* sample = static_cast<const float*>(conv_.in.data) + conv_.in_offset +
                          sample_ * product(extent) * conv_.in_pitch;
    Box box;
    for (int i = 0; i < 3; ++i) {
      box.begin[i] = begin_[i] * conv_.axis[i].stride + first_tap(conv_.axis[i]);
    }
    if (direct_) {
      pitch_ = {extent[1] * extent[2] * conv_.in_pitch, extent[2] * conv_.in_pitch, conv_.in_pitch};
      a_ = sample + box.begin[0] * pitch_[0] + box.begin[1] * pitch_[1] + box.begin[2] * pitch_[2];
      return;
    }
    box.size = input_extent(conv_, size_);
    float* copy = scratch(Purpose::tile, product(box.size) * conv_.channels);
    copy_box(sample, extent, conv_.in_pitch, conv_.channels, box, copy);
    pitch_ = {box.size[1] * box.size[2] * conv_.channels, box.size[2] * conv_.channels,
              conv_.channels};
    a_ = copy;
  }

  void list_pairs() {
    pairs_.a_bytes.clear();
    pairs_.out.clear();
    pairs_.place.clear();
    const int64_t width = size_[2];
    for (int64_t d = 0; d < size_[0]; ++d) {
      for (int64_t h = 0; h < size_[1]; ++h) {
        const int64_t a_row =
            d * conv_.axis[0].stride * pitch_[0] + h * conv_.axis[1].stride * pitch_[1];
        const int64_t out_row = d * conv_.out_step[0] + h * conv_.out_step[1];
        for (int64_t w = 0; w < width; w += 2) {
          // An odd row ends with a pair that repeats its neighbour's last position.
          const bool odd_end = w + 1 == width;
          const int64_t first = odd_end ? std::max<int64_t>(w - 1, 0) : w;
          const auto out_at = [&](int64_t x) { return out_row + x * conv_.out_step[2]; };
          const bool single = width == 1;
          pairs_.a_bytes.push_back((a_row + first * conv_.axis[2].stride * pitch_[2]) *
                                   float_bytes);
          pairs_.out.push_back({odd_end && !single ? dropped_row : out_at(first),
                                single ? dropped_row : out_at(first + 1)});
          pairs_.place.push_back({d, h});
        }
      }
    }
  }

  // The taps [first, last) that read any real input for outputs [from, to] of this block.
  std::array<size_t, 2> taps_used(int axis, int64_t from, int64_t to) const {
    const GatherAxis& a = conv_.axis[axis];
    const int64_t low = (begin_[axis] + from) * a.stride, high = (begin_[axis] + to) * a.stride;
    size_t first = 0, last = a.taps.size();
    while (first < last && high + a.taps[first] < 0) ++first;
    while (last > first && low + a.taps[last - 1] >= a.in) --last;
    return {first, last};
  }

  // Every kernel row meets the input at every output row of the block.
  bool whole_block_inside() const {
    for (int i = 0; i < 2; ++i) {
      const GatherAxis& a = conv_.axis[i];
      if (a.taps.empty()) continue;
      const int64_t low = begin_[i] * a.stride + a.taps.front();
      const int64_t high = (begin_[i] + size_[i] - 1) * a.stride + a.taps.back();
      if (low < 0 || high >= a.in) return false;
    }
    return true;
  }

  // The taps the rows [first, last] of the block need; kernel rows wholly in the border are left
  // out. `fresh`: the block is another than that of the list before.
  void list_runs(const std::array<int64_t, 2>& first, const std::array<int64_t, 2>& last, bool fresh) {
    const bool one_plane = first[0] == last[0];
    const std::array<size_t, 2> depth = taps_used(0, first[0], last[0]),
                                height = taps_used(1, one_plane ? first[1] : 0, one_plane ? last[1] : size_[1] - 1);
    if (!fresh && depth == listed_depth_ && height == listed_height_) return;
    listed_depth_ = depth;
    listed_height_ = height;
    runs_.clear();
    const auto& taps_d = conv_.axis[0].taps;
    const auto& taps_h = conv_.axis[1].taps;
    const auto& taps_w = conv_.axis[2].taps;
    const bool joined = consecutive(taps_w) && pitch_[2] == conv_.channels;
    const auto width_taps = static_cast<int64_t>(taps_w.size());
    for (size_t d = depth[0]; d < depth[1]; ++d) {
      for (size_t h = height[0]; h < height[1]; ++h) {
        const int64_t a_row =
            (taps_d[d] - taps_d[0]) * pitch_[0] + (taps_h[h] - taps_h[0]) * pitch_[1];
        const auto kernel_row = static_cast<int64_t>(d * taps_h.size() + h);
        const int64_t b_row = kernel_row * width_taps * conv_.channels;
        if (row_tiles_ || joined) {
          if (width_taps > 0) runs_.push_back({a_row * float_bytes, b_row});
          continue;
        }
        for (int64_t w = 0; w < width_taps; ++w) {
          const int64_t a = a_row + (taps_w[static_cast<size_t>(w)] - taps_w[0]) * pitch_[2];
          runs_.push_back({a * float_bytes, b_row + w * conv_.channels});
        }
      }
    }
    run_length_ = joined && !row_tiles_ ? width_taps * conv_.channels : conv_.channels;
  }

  struct Weights {
    const float* data;
    int64_t pitch;
  };

  Weights panel_weights(const Panel& panel) {
    const int64_t pitch = panel.vectors * kernels_.width;
    switch (packing_) {
      case Packing::none:
        return {conv_.weights.data + panel.column, conv_.weights.pitch};
      case Packing::shared:
        return {packed_ + panel.before * kernels_.width * weight_rows(conv_), pitch};
      case Packing::per_thread:
        break;
    }
    float* copy = scratch(Purpose::panel, weight_rows(conv_) * pitch);
    pack_panel(kernels_, conv_, panel, copy);
    return {copy, pitch};
  }

  TileArgs panel_args(const Panel& panel) {
    const Weights weights = panel_weights(panel);
    TileArgs args = {};
    args.a = reinterpret_cast<const char*>(a_);
    args.pair_step = size_[2] == 1 ? 0 : conv_.axis[2].stride * pitch_[2] * float_bytes;
    args.k_step = float_bytes;
    args.b = weights.data;
    args.ldb = weights.pitch;
    args.bias = conv_.epilogue.bias == nullptr ? nullptr : conv_.epilogue.bias + panel.column;
    args.activation = static_cast<int>(conv_.epilogue.activation);
    args.slope = conv_.epilogue.slope;
    args.last_columns = panel.last_columns;
    args.past_caches = past_caches_;
    return args;
  }

  float* panel_output(const Panel& panel) const {
    float* out = static_cast<float*>(conv_.out.data) + conv_.out_offset +
                 sample_ * conv_.out_batch + panel.out;
    for (int i = 0; i < 3; ++i) out += begin_[i] * conv_.out_step[i];
    return out;
  }

  // The residual lies as the output does.
  const float* residual_at(const float* out) const {
    const float* residual = conv_.epilogue.residual;
    return residual == nullptr ? nullptr
                               : residual + (out - static_cast<const float*>(conv_.out.data));
  }

  void set_runs(TileArgs& args, const std::array<int64_t, 2>& first,
                const std::array<int64_t, 2>& last) {
    if (!all_rows_alike_) list_runs(first, last, false);
    args.runs = runs_.data();
    args.run_count = static_cast<int64_t>(runs_.size());
    args.k = run_length_;
  }

  void run_panel(const Panel& panel) {
    TileArgs args = panel_args(panel);
    float* out = panel_output(panel);
    alignas(64) float dropped[max_panel_vectors * 16] = {};
    float* rows[max_tile_rows];
    const float* residual[max_tile_rows];
    args.c = rows;
    args.residual = conv_.epilogue.residual == nullptr ? nullptr : residual;
    const auto pair_count = static_cast<int64_t>(pairs_.a_bytes.size());
    const int64_t tiles = ceil_div(pair_count, kernels_.pairs[panel.vectors - 1]);
    for (int64_t t = 0; t < tiles; ++t) {
      // Even shares: a last tile of one pair would run at a fraction of the speed.
      const int64_t from = share(pair_count, t, tiles);
      const int64_t to = share(pair_count, t + 1, tiles);
      set_runs(args, pairs_.place[static_cast<size_t>(from)],
               pairs_.place[static_cast<size_t>(to - 1)]);
      for (int64_t p = from; p < to; ++p) {
        for (size_t i = 0; i < 2; ++i) {
          const int64_t offset = pairs_.out[static_cast<size_t>(p)][i];
          const size_t row = 2 * static_cast<size_t>(p - from) + i;
          rows[row] = offset == dropped_row ? dropped : out + offset;
          residual[row] = offset == dropped_row ? nullptr : residual_at(out + offset);
        }
      }
      args.pair_bytes = pairs_.a_bytes.data() + from;
      sum_runs(args, kernels_.tile[panel.vectors - 1][to - from - 1]);
    }
  }

  // The same with row tiles, one output row at a time.
  void run_rows(const Panel& panel) {
    TileArgs args = panel_args(panel);
    args.pair_step = pitch_[2] * float_bytes;
    float* rows[max_row_outputs];
    const float* residual[max_row_outputs];
    args.c = rows;
    args.residual = conv_.epilogue.residual == nullptr ? nullptr : residual;
    const int64_t tiles = ceil_div(size_[2], kernels_.row_outputs);
    for (int64_t d = 0; d < size_[0]; ++d) {
      for (int64_t h = 0; h < size_[1]; ++h) {
        set_runs(args, {d, h}, {d, h});
        const float* a =
            a_ + d * conv_.axis[0].stride * pitch_[0] + h * conv_.axis[1].stride * pitch_[1];
        float* out = panel_output(panel) + d * conv_.out_step[0] + h * conv_.out_step[1];
        for (int64_t t = 0; t < tiles; ++t) {
          const int64_t from = size_[2] * t / tiles;
          const int64_t to = size_[2] * (t + 1) / tiles;
          for (int64_t w = from; w < to; ++w) {
            rows[w - from] = out + w * conv_.out_step[2];
            residual[w - from] = residual_at(rows[w - from]);
          }
          args.a = reinterpret_cast<const char*>(a + from * pitch_[2]);
          kernels_.row_tile[to - from - 1](args);
        }
      }
    }
  }

  const KernelTable& kernels_;
  const GatherConv& conv_;
  Triple block_;
  Packing packing_;
  const float* packed_;
  Triple listed_ = {};
  bool all_rows_alike_ = false;
  bool direct_ = false;
  bool row_tiles_ = false;
  bool past_caches_ = false;
  int64_t current_ = -1;
  int64_t sample_ = 0;
  Triple begin_ = {};
  Triple size_ = {};
  const float* a_ = nullptr;
  Triple pitch_ = {};
  RowPairs pairs_;
  std::vector<Run> runs_;
  std::array<size_t, 2> listed_depth_ = {}, listed_height_ = {};  // the taps in it
  int64_t run_length_ = 0;
};

// Every panel, as pack_panel leaves it, at its column times the number of rows.
const float* pack_all(const KernelTable& kernels, const GatherConv& c,
                      const std::vector<Panel>& panels) {
  const int64_t rows = weight_rows(c);
  float* packed =
      scratch(Purpose::weights, vectors_of(panels) * kernels.width * rows);
  // Copying a weight costs about as much as a hundred multiply-adds.
  const auto count = static_cast<int64_t>(panels.size());
  parallel_for(count, task_grain(count, rows * c.columns * 100), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Panel& panel = panels[static_cast<size_t>(i)];
      pack_panel(kernels, c, panel, packed + panel.before * kernels.width * rows);
    }
  });
  return packed;
}

}  // namespace

int64_t runs_of_a_part(int64_t k) {
  constexpr int64_t part_length = 512;
  return std::max<int64_t>(1, part_length / std::max<int64_t>(1, k));
}

void flatten(GatherConv& c) {
  if (!merge_into_width(c, 1) || !merge_into_width(c, 0)) return;
  GatherAxis& w = c.axis[2];
  const bool by_sample = c.norm != nullptr || c.moments != nullptr;
  if (!by_sample && identity(w) && c.out_batch == w.out * c.out_step[2]) {
    w.in = w.out = w.out * c.batch;
    c.batch = 1;
  }
}

Triple input_extent(const GatherConv& c, const Triple& block) {
  Triple extent;
  for (int i = 0; i < 3; ++i) extent[i] = (block[i] - 1) * c.axis[i].stride + span(c.axis[i]);
  return extent;
}

bool consecutive(const std::vector<int64_t>& taps) {
  return taps.empty() || taps.back() - taps.front() + 1 == static_cast<int64_t>(taps.size());
}

Triple out_size(const GatherConv& c) { return {c.axis[0].out, c.axis[1].out, c.axis[2].out}; }

Triple choose_block(const GatherConv& c, double vectors) {
  const int64_t budget = l2_bytes() / 3 / float_bytes;
  const auto taps =
      static_cast<int64_t>(c.axis[0].taps.size() * c.axis[1].taps.size() * c.axis[2].taps.size());
  const double arithmetic = 0.5 * static_cast<double>(taps * c.channels) * vectors;
  return cheapest_block(out_size(c), {1, 1, std::min<int64_t>(c.axis[2].out, 16)}, [&](const Triple& block) {
    const int64_t floats = product(input_extent(c, block)) * c.channels;
    if (floats > budget) return std::numeric_limits<double>::infinity();
    const double positions = static_cast<double>(product(block));
    const double copy = 0.2 * static_cast<double>(floats) / positions;
    const double overhead = (500.0 + 30.0 * vectors) / positions;
    return idle_factor(block_count(c.batch, out_size(c), block)) * (arithmetic + copy + overhead);
  });
}

int64_t multiply_adds(const GatherConv& c) {
  return c.batch * c.axis[0].out * c.axis[1].out * c.axis[2].out * weight_rows(c) * c.columns;
}

bool leaves_caches(const GatherConv& c) {
  constexpr int64_t line = 64;
  const int64_t value = size_of(c.out.dtype);
  bool lines = reinterpret_cast<uintptr_t>(c.out.data) % line == 0;
  const auto whole = [&](int64_t step) { lines &= step * value % line == 0; };
  for (const int64_t step : {c.out_offset, c.out_batch}) whole(step);
  for (const int64_t step : c.out_step) whole(step);
  for (const int64_t step : c.group_out) whole(step);
  return lines && c.batch * product(out_size(c)) * c.columns * value >= far_bytes();
}

int64_t weight_rows(const GatherConv& c) {
  return static_cast<int64_t>(c.axis[0].taps.size() * c.axis[1].taps.size() *
                              c.axis[2].taps.size()) *
         c.channels;
}

void pack_panel(const KernelTable& kernels, const GatherConv& c, const Panel& panel, float* to) {
  constexpr int64_t prefetch_rows = 16;  // far rows defeat the hardware's own prefetching
  const GatherWeights& w = c.weights;
  const int64_t pitch = panel.vectors * kernels.width;
  const int64_t columns = columns_of(panel, panel, kernels.width);
  for (const int64_t kd : w.kernel[0]) {
    for (const int64_t kh : w.kernel[1]) {
      for (const int64_t kw : w.kernel[2]) {
        const int64_t position = (kd * w.kernel_size[1] + kh) * w.kernel_size[2] + kw;
        const float* from = w.data + position * w.position;
        if (w.transposed) {
          kernels.transpose(from + panel.column * w.pitch, columns, c.channels, w.pitch, to, pitch);
        } else {
          for (int64_t r = 0; r < c.channels; ++r) {
            __builtin_prefetch(from + (r + prefetch_rows) * w.pitch + panel.column);
            __builtin_prefetch(from + (r + prefetch_rows) * w.pitch + panel.column + columns - 1);
            std::memcpy(to + r * pitch, from + r * w.pitch + panel.column,
                        static_cast<size_t>(columns) * sizeof(float));
          }
        }
        to += c.channels * pitch;
      }
    }
  }
}

KernelTaps forward_taps(const ConvGeometry& g, int axis) {
  KernelTaps t = {{g.in[axis], g.out()[axis], g.stride[axis], {}}, {}};
  for (int64_t k = 0; k < g.kernel[axis]; ++k) {
    t.axis.taps.push_back(k * g.dilation[axis] - g.pad[axis]);
    t.kernel.push_back(k);
  }
  return t;
}

KernelTaps residue_taps(const ConvGeometry& g, int axis, int64_t residue) {
  const int64_t stride = g.stride[axis];
  const int64_t positions = residue < g.in[axis] ? ceil_div(g.in[axis] - residue, stride) : 0;
  KernelTaps t = {{g.out()[axis], positions, 1, {}}, {}};
  for (int64_t k = g.kernel[axis] - 1; k >= 0; --k) {
    const int64_t numerator = residue + g.pad[axis] - k * g.dilation[axis];
    if (numerator % stride != 0) continue;
    t.axis.taps.push_back(numerator / stride);
    t.kernel.push_back(k);
  }
  return t;
}

std::vector<Panel> split_columns(int64_t columns, int width, int most_vectors) {
  std::vector<Panel> panels;
  const int64_t all = ceil_div(columns, width);
  for (int64_t before = 0; before < all;) {
    // Pairs of vectors are the best tile shape; an odd count ends with three, where that may be, rather than one.
    const int64_t left = all - before;
    const int take = left == 3 && most_vectors == 3 ? 3 : static_cast<int>(std::min<int64_t>(left, 2));
    const int64_t column = before * width;
    const int64_t last = std::min<int64_t>(width, columns - column - (take - 1) * width);
    panels.push_back({column, take, static_cast<int>(last), before, column});
    before += take;
  }
  return panels;
}

std::vector<Panel> split_groups(const GatherConv& c, int width, int most_vectors) {
  const auto groups = static_cast<int64_t>(c.group_out.size());
  const std::vector<Panel> of_group = split_columns(c.columns / groups, width, most_vectors);
  std::vector<Panel> panels;
  for (int64_t g = 0; g < groups; ++g) {
    for (Panel panel : of_group) {
      panel.column += g * (c.columns / groups);
      panel.before += g * vectors_of(of_group);
      panel.out += c.group_out[static_cast<size_t>(g)];
      panel.group = g;
      panels.push_back(panel);
    }
  }
  return panels;
}

int64_t columns_of(const Panel& first, const Panel& last, int width) {
  return last.column - first.column + (last.vectors - 1) * width + last.last_columns;
}

int64_t vectors_of(const std::vector<Panel>& panels) {
  return panels.empty() ? 0 : panels.back().before + panels.back().vectors;
}

void copy_box(const float* in, const Triple& extent, int64_t pitch, int64_t channels,
              const Box& box, float* to) {
  const auto bytes = [&](int64_t positions) {
    return static_cast<size_t>(positions * channels) * sizeof(float);
  };
  const int64_t from_w = std::clamp<int64_t>(box.begin[2], 0, extent[2]);
  const int64_t to_w = std::clamp<int64_t>(box.begin[2] + box.size[2], from_w, extent[2]);
  const int64_t before = std::min(from_w - box.begin[2], box.size[2]);
  const int64_t real = to_w - from_w;
  for (int64_t d = box.begin[0]; d < box.begin[0] + box.size[0]; ++d) {
    for (int64_t h = box.begin[1]; h < box.begin[1] + box.size[1]; ++h) {
      const bool empty = d < 0 || d >= extent[0] || h < 0 || h >= extent[1] || real == 0;
      if (empty) {
        std::memset(to, 0, bytes(box.size[2]));
      } else {
        const float* row = in + ((d * extent[1] + h) * extent[2] + from_w) * pitch;
        std::memset(to, 0, bytes(before));
        if (pitch == channels) {
          std::memcpy(to + before * channels, row, bytes(real));
        } else {
          for (int64_t w = 0; w < real; ++w) {
            std::memcpy(to + (before + w) * channels, row + w * pitch, bytes(1));
          }
        }
        std::memset(to + (before + real) * channels, 0, bytes(box.size[2] - before - real));
      }
      to += box.size[2] * channels;
    }
  }
}

void gather_conv(const KernelTable& kernels, GatherConv conv) {
  flatten(conv);
  const Triple block =
      choose_block(conv, static_cast<double>(ceil_div(conv.columns, kernels.width)));
  const std::vector<Panel> panels = split_groups(conv, kernels.width);
  const int64_t blocks = block_count(conv.batch, out_size(conv), block);
  const Packing packing = choose_packing(conv, blocks, static_cast<int64_t>(panels.size()));
  const float* packed = packing == Packing::shared ? pack_all(kernels, conv, panels) : nullptr;
  run_blocks(blocks, panels, multiply_adds(conv),
             [&] { return BlockRunner(kernels, conv, block, packing, packed); });
}

}  // namespace voxlab::cpu
