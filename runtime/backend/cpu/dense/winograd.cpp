// Cuts the output into blocks of 2x2 tiles whose transformed input fits the second-level cache. Each of the 16
// points is then a convolution along D alone: matrix tiles over it make the points of the output. Where the kernel is
// 3x3x3 and channels are many, D is transformed too: tiles of 2x2x2, and each of 64 points is a plain matrix product.
#include "runtime/backend/cpu/dense/winograd.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "runtime/backend/cpu/dense/blocks.h"
#include "runtime/backend/cpu/dense/conv_moments.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {
namespace {

constexpr int64_t float_bytes = sizeof(float), cache_line = line_floats * float_bytes;
constexpr int64_t points = winograd_points;
constexpr int64_t tile_side = winograd_side;
constexpr int64_t max_depth_taps = 16;
using Triple = std::array<int64_t, 3>;

int64_t depth_taps(const GatherConv& c) { return static_cast<int64_t>(c.axis[0].taps.size()); }

// Floats of transformed input under a block.
int64_t input_floats(const GatherConv& c, const Triple& block) {
  return (block[0] + depth_taps(c) - 1) * block[1] * block[2] * points * c.channels;
}

// How D is treated: its taps as they are, or by F(2, 3) like the other two sides (a cube). And whether points are f32,
// or bf16 whose products `pairs` adds two at a time.
struct Form {
  bool cube;
  int64_t points;  // of a tile
  int64_t side;    // output planes of a tile
  int64_t taps;    // along D that are left to sum over
  const PairTable* pairs = nullptr;
  // All panels at one point, then at the next: of so many channels that only one point of the input stays in the cache.
  bool points_first = false;

  int64_t point_bytes() const { return pairs != nullptr ? float_bytes / 2 : float_bytes; }
  // Values from a tile to the next: not so many that rows collide. The third transform of a cube runs over rows without gaps.
  int64_t row(const GatherConv& c) const {
    const bool apart = cube || !rows_collide(c.channels * point_bytes() / float_bytes);
    return apart ? c.channels : c.channels + cache_line / point_bytes();
  }
  // A channel, or a pair of them.
  int64_t slots(const GatherConv& c) const { return pairs != nullptr ? c.channels / 2 : c.channels; }
  // Whether a panel's products take two pairs of channels a step.
  bool joins(const GatherConv& c, const Panel& panel) const {
    return pairs != nullptr && !cube && panel.vectors == 1 && c.channels % 4 == 0;
  }
};
Form plain_form(const GatherConv& c) { return {false, points, 1, depth_taps(c)}; }
constexpr Form cube_form = {true, winograd_depth_points * points, winograd_side, 1};

Triple tiles_of(const GatherConv& c, const Form& form) {
  Triple tiles = tiles_of(c);
  tiles[0] = ceil_div(tiles[0], form.side);
  return tiles;
}

// Tiles along W of a block of cubes that are transformed at a time: their planes take an eighth of the second-level cache, or
// a little more, for each strip reads two columns of its neighbour's.
int64_t strip_bytes() { return std::max(l2_bytes() / 8, int64_t{160} << 10); }
int64_t strip_of(const GatherConv& c, const Triple& block) {
  const int64_t tile = (cube_form.side * block[0] + 2) * points * c.channels * float_bytes;
  return std::clamp(strip_bytes() / tile, int64_t{1}, block[2]);
}

// The transformed weights of some neighbouring panels: [point][tap][channel, or pair of them][columns of the panel].
struct Weights {
  const float* data;
  int64_t first_column;
  int64_t rows;  // tap, channel or pair
  int64_t points;
  const float* panel(const Panel& p) const { return data + (p.column - first_column) * rows * points; }
};

// One kernel plane of one panel at its 16 points, `step` floats apart; of pairs, when there are any.
void transform_plane(const KernelTable& kernels, const PairTable* pairs, const GatherConv& c, const Panel& panel,
                     int64_t tap, float* to, int64_t step) {
  GatherConv plane = c;
  const int64_t n = c.channels * panel.vectors * kernels.width;
  plane.weights.kernel[0] = {c.weights.kernel[0][static_cast<size_t>(tap)]};
  float* packed = scratch(Purpose::panel, 9 * n);
  if (panel.last_columns < kernels.width) std::memset(packed, 0, static_cast<size_t>(9 * n) * sizeof(float));
  pack_panel(kernels, plane, panel, packed);
  if (pairs != nullptr) return pairs->winograd_weights(packed, n, c.channels, n / c.channels, to, step);
  kernels.winograd_weights(packed, n, n, to, step);
}

Weights transform_weights(const KernelTable& kernels, const GatherConv& c, const Form& form,
                          const std::vector<Panel>& panels) {
  const int64_t taps = depth_taps(c), rows = form.taps * form.slots(c);
  const Panel& last = panels.back();
  const int64_t first_column = panels.front().column, columns = last.column + last.vectors * kernels.width - first_column;
  float* data = scratch(Purpose::weights, form.points * rows * columns);
  // One kernel plane of one panel at a time, so that the packed copy stays in cache.
  const int64_t parts = form.cube ? 1 : taps;
  const int64_t jobs = static_cast<int64_t>(panels.size()) * parts;
  parallel_for(jobs, task_grain(jobs, taps * c.channels * c.columns * 100), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Panel& panel = panels[static_cast<size_t>(i / parts)];
      const int64_t pitch = panel.vectors * kernels.width, n = c.channels * pitch, slots = form.slots(c) * pitch;
      float* to = data + (panel.column - first_column) * rows * form.points;
      if (!form.cube) {
        transform_plane(kernels, form.pairs, c, panel, i % parts, to + i % parts * slots, form.taps * slots);
        if (form.joins(c, panel)) {
          for (int64_t p = 0; p < points; ++p) form.pairs->join_rows(to + (p * form.taps + i % parts) * slots, form.slots(c));
        }
        continue;
      }
      float* planes = scratch(Purpose::deep, taps * points * n);
      for (int64_t tap = 0; tap < taps; ++tap)
        transform_plane(kernels, nullptr, c, panel, tap, planes + tap * points * n, n);
      if (form.pairs != nullptr) {
        form.pairs->winograd_depth_weights(planes, points * n, points * c.channels, pitch, to, points * slots);
      } else {
        kernels.winograd_depth_weights(planes, points * n, points * n, to, points * n);
      }
    }
  });
  return {data, first_column, rows, form.points};
}

// How many panels are taken at a time, so many for each thread, that the transformed weights of large kernels are never held for
// all columns. The input is transformed for each group again.
int64_t panels_at_a_time(const KernelTable& kernels, const GatherConv& c, const Form& form) {
  constexpr int64_t most_bytes = int64_t{64} << 20;
  const int64_t panel_bytes = form.points * form.taps * form.slots(c) * 2 * kernels.width * float_bytes, threads = thread_count();
  return std::max<int64_t>(1, most_bytes / panel_bytes / threads) * threads;
}

// Computes blocks; one object a thread.
class TileRunner {
 public:
  TileRunner(const KernelTable& kernels, const GatherConv& conv, const Form& form, const Triple& block,
             const Weights& weights, MomentParts& moments)
      : kernels_(kernels), conv_(conv), form_(form), block_(block), weights_(weights), all_moments_(moments),
        moments_(conv.moments == nullptr ? 0 : static_cast<size_t>(conv.batch * conv.columns)),
        past_caches_(conv.out.dtype == DType::f32 && kernels.width * float_bytes == cache_line &&
                     conv.columns % kernels.width == 0 && leaves_caches(conv)),
        lines_ahead_(!past_caches_ && leaves_caches(conv)) {}
  ~TileRunner() {
    if (past_caches_) std::atomic_thread_fence(std::memory_order_seq_cst);
    if (conv_.moments != nullptr) all_moments_.add(first_block_, std::move(moments_));
  }
  TileRunner(const TileRunner&) = delete;
  TileRunner& operator=(const TileRunner&) = delete;

  void run(int64_t index, const Panel* panels, int64_t panel_count) {
    if (current_ < 0) first_block_ = index;
    if (index != current_) {
      current_ = index;
      at_ = place_block(tiles_of(conv_, form_), block_, index);
      transform();
    }
    const int64_t at_once = form_.points_first ? panel_count : 1;
    for (int64_t p = 0; p < panel_count; p += at_once) run_panels(panels + p, at_once);
  }

 private:
  void transform() {
    const PairTable* pairs = form_.pairs;
    if (!form_.cube) {
      const auto* to_points = pairs != nullptr ? pairs->winograd_input : &kernels_.winograd_input;
      v_ = transform_at({to_points, form_.point_bytes(), 1, form_.row(conv_)}, at_);
      return;
    }
    const PointFormat format = {pairs != nullptr ? pairs->winograd_planes : &kernels_.winograd_input, float_bytes, 1, conv_.channels};
    // The planes of each of the 16 points, four at a time, to four points of D; strip by strip, so that planes stay at hand.
    const int64_t plane = at_.size[1] * at_.size[2] * conv_.channels, point = at_.size[0] * plane;
    const auto to_points = pairs != nullptr ? pairs->winograd_depth_input : kernels_.winograd_depth_input;
    auto* deep = reinterpret_cast<std::byte*>(scratch(Purpose::deep, form_.points * point + conv_.channels));
    const int64_t strip = strip_of(conv_, at_.size);
    for (int64_t h = 0; h < at_.size[1]; ++h) {
      for (int64_t w = 0; w < at_.size[2]; w += strip) {
        const BlockPlace place = {at_.sample,
                                  {form_.side * at_.begin[0], at_.begin[1] + h, at_.begin[2] + w},
                                  {form_.side * at_.size[0], 1, std::min(strip, at_.size[2] - w)}};
        const InputPoints v = transform_at(format, place);
        for (int64_t p = 0; p < points; ++p) {
          const float* planes = static_cast<const float*>(v.data) + p * v.point;
          for (int64_t d = 0; d < at_.size[0]; ++d)
            to_points(planes + form_.side * d * v.plane, v.plane, v.plane,
                      deep + (p * point + d * plane + (h * at_.size[2] + w) * conv_.channels) * form_.point_bytes(), points * point);
        }
      }
    }
    v_ = {deep, plane, point, point};
  }

  InputPoints transform_at(const PointFormat& format, const BlockPlace& place) const {
    return transform_input(format, conv_, place, scratch(Purpose::tile, input_values(format, conv_, place)));
  }

  // As many whole tiles of rows at a time as keep their points in half of what the input leaves of the cache; all where points
  // come first.
  void run_panels(const Panel* panels, int64_t count) {
    const int vectors = std::max(panels[0].vectors, panels[count - 1].vectors);  // the last may differ, either way
    const int64_t pitch = vectors * kernels_.width;
    const int64_t tile_rows = 2 * kernels_.pairs[vectors - 1];
    const int64_t rows = product(at_.size), tiles = ceil_div(rows, tile_rows);
    const int64_t fit = l2_bytes() / 6 / (form_.points * pitch * float_bytes);
    const int64_t parts = form_.points_first ? 1 : ceil_div(tiles, std::max<int64_t>(1, fit / tile_rows));
    const int64_t at_once = form_.points_first ? 1 : form_.points;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t from = share(tiles, part, parts) * tile_rows, to = std::min(rows, share(tiles, part + 1, parts) * tile_rows);
      const int64_t point = (to - from + 1) * pitch, sums = form_.points * point;
      float* m = scratch(Purpose::rows, count * sums);
      if (lines_ahead_) list_lines(panels[0], panels[count - 1], from, to);
      const int64_t ahead = ceil_div(positions_, form_.points * count);
      for (int64_t p = 0; p < form_.points; p += at_once) {
        for (int64_t i = 0; i < count; ++i) sum_points(panels[i], p, p + at_once, from, to, m + i * sums, point, ahead);
      }
      for (int64_t i = 0; i < count; ++i) {
        float* const panel = m + i * sums;
        if (form_.cube) kernels_.winograd_depth_output(panel, points * point, points * point);
        for (int64_t plane = 0; plane < form_.side; ++plane)
          store_tiles(panels[i], from, to, plane, panel + plane * points * point, point);
      }
    }
  }

  // Rows [from, to) of points [first, last), which lie `point_step` floats apart in m. After each, `ahead` positions of the
  // output are asked for.
  void sum_points(const Panel& panel, int64_t first, int64_t last, int64_t from, int64_t to, float* m, int64_t point_step,
                  int64_t ahead) {
    const int64_t pitch = panel.vectors * kernels_.width;
    const bool joined = form_.joins(conv_, panel);
    const int64_t step = joined ? 2 : 1, slots = form_.slots(conv_) / step, row_bytes = form_.row(conv_) * form_.point_bytes();
    // One run a tap; a long sum over the channels alone is two runs, which are added in parts.
    const int64_t halves = form_.cube && slots > 320 && slots % 2 == 0 ? 2 : 1;
    const int64_t length = slots / halves, run_count = form_.taps * halves;
    std::array<Run, max_depth_taps> runs;
    for (int64_t r = 0; r < form_.taps; ++r)
      runs[static_cast<size_t>(r)] = {r * v_.plane * form_.point_bytes(), r * slots};
    if (halves == 2) runs[1] = {length * float_bytes, length};
    const int64_t part = runs_of_a_part(length);
    const TileStackFn* sums = joined                   ? form_.pairs->joined_stack
                             : form_.pairs != nullptr ? form_.pairs->tile_stack[panel.vectors - 1]
                                                      : kernels_.tile_stack[panel.vectors - 1];
    // Even shares: first `longer` tiles of a pair of rows more than the others.
    const int64_t pairs = ceil_div(to - from, 2);
    const int64_t tiles = ceil_div(pairs, kernels_.pairs[panel.vectors - 1]);
    const int64_t least = pairs / tiles, longer = pairs % tiles;
    TileStackArgs args = {};
    args.row_bytes = row_bytes;
    args.k = length;
    args.b = weights_.panel(panel) + first * weights_.rows * pitch;
    const char* a = static_cast<const char*>(v_.data) + from * row_bytes;
    for (int64_t p = first; p < last; ++p) {
      for (int64_t run = 0; run < run_count; run += part) {
        args.runs = runs.data() + run;
        args.run_count = std::min(part, run_count - run);
        args.accumulate = run > 0;
        args.a = a + p * v_.point * form_.point_bytes();
        args.c = m + p * point_step;
        args.tiles = longer;
        if (longer > 0) sums[least](args);
        args.a += 2 * (least + 1) * longer * row_bytes;
        args.c += 2 * (least + 1) * longer * pitch;
        args.tiles = tiles - longer;
        sums[least - 1](args);
      }
      args.b += weights_.rows * pitch;
      if (lines_ahead_) fetch_lines(ahead);
    }
  }

  // Output beyond the caches is asked for while its sums are made: its stores would wait for memory, and the sums with them.
  void list_lines(const Panel& first, const Panel& last, int64_t from, int64_t to) {
    positions_ = 0;
    stretches_.clear();
    for (int64_t plane = 0; plane < form_.side; ++plane) {
      each_stretch(first, from, to, plane, [&](const Stretch& s) {
        for (int64_t i = 0; i < s.lines; ++i) {
          stretches_.push_back({s.at + i * conv_.out_step[1], s.columns});
          positions_ += s.columns;
        }
      });
    }
    bytes_ = columns_of(first, last, kernels_.width) * size_of(conv_.out.dtype);
  }

  void fetch_lines(int64_t positions) {
    const int64_t value_bytes = size_of(conv_.out.dtype);
    while (positions > 0 && !stretches_.empty()) {
      auto& [at, columns] = stretches_.back();
      const int64_t count = std::min(positions, columns);
      const std::byte* first = static_cast<const std::byte*>(conv_.out.data) + at * value_bytes;
      for (int64_t i = 0; i < count; ++i, first += conv_.out_step[2] * value_bytes) {
        for (int64_t byte = 0; byte < bytes_; byte += cache_line) __builtin_prefetch(first + byte, 1, 2);
        __builtin_prefetch(first + bytes_ - 1, 1, 2);
      }
      positions -= count;
      at += count * conv_.out_step[2];
      columns -= count;
      if (columns == 0) stretches_.pop_back();
    }
  }

  // Tiles of one row of the block that lie beside each other.
  struct Stretch {
    int64_t row, tiles;
    int64_t columns, lines;  // of the output
    int64_t at;              // its first value
  };
  template <class Each>
  void each_stretch(const Panel& panel, int64_t from, int64_t to, int64_t plane, const Each& each) const {
    for (int64_t row = from, tiles = 0; row < to; row += tiles) {
      const int64_t line = row / at_.size[2], w = row % at_.size[2];
      tiles = std::min(at_.size[2] - w, to - row);
      const int64_t d = form_.side * (at_.begin[0] + line / at_.size[1]) + plane;
      if (d >= conv_.axis[0].out) continue;
      const int64_t h = tile_side * (at_.begin[1] + line % at_.size[1]);
      const int64_t x = tile_side * (at_.begin[2] + w);
      each(Stretch{row, tiles, std::min(tile_side * tiles, conv_.axis[2].out - x), std::min(tile_side, conv_.axis[1].out - h),
                   conv_.out_offset + at_.sample * conv_.out_batch + panel.column + d * conv_.out_step[0] + h * conv_.out_step[1] +
                       x * conv_.out_step[2]});
    }
  }

  // Plane `plane` of the tiles of rows [from, to) of the block, one stretch of a tile row at a time.
  void store_tiles(const Panel& panel, int64_t from, int64_t to, int64_t plane, const float* m, int64_t point) {
    const int64_t pitch = panel.vectors * kernels_.width;
    const Epilogue& epilogue = conv_.epilogue;
    WinogradOutputArgs args = {};
    args.point_step = point;
    args.row_pitch = pitch;
    args.out_pitch = conv_.out_step[2];
    args.bias = epilogue.bias == nullptr ? nullptr : epilogue.bias + panel.column;
    args.activation = static_cast<int>(epilogue.activation);
    args.slope = epilogue.slope;
    args.vectors = panel.vectors;
    args.last_columns = panel.last_columns;
    args.past_caches = past_caches_;
    args.out_bf16 = conv_.out.dtype == DType::bf16;
    args.residual_bf16 = epilogue.residual_bf16 != nullptr;
    auto* out = static_cast<std::byte*>(conv_.out.data);
    const auto* residual = args.residual_bf16 ? reinterpret_cast<const std::byte*>(epilogue.residual_bf16)
                                              : reinterpret_cast<const std::byte*>(epilogue.residual);
    const int64_t out_bytes = size_of(conv_.out.dtype), residual_bytes = size_of(args.residual_bf16 ? DType::bf16 : DType::f32);
    each_stretch(panel, from, to, plane, [&](const Stretch& s) {
      args.tiles = s.tiles;
      args.columns = s.columns;
      args.m = m + (s.row - from) * pitch;
      if (conv_.moments != nullptr) add_moments(panel, s.columns * s.lines, args);
      for (int64_t i = 0; i < tile_side; ++i) {
        const bool inside = i < s.lines;
        const int64_t offset = s.at + i * conv_.out_step[1];
        args.out[i] = inside ? out + offset * out_bytes : nullptr;
        args.residual[i] = inside && residual != nullptr ? residual + offset * residual_bytes : nullptr;
      }
      (form_.pairs != nullptr ? form_.pairs->winograd_output : kernels_.winograd_output)(args);
    });
  }

  // Those of `count` values a column.
  void add_moments(const Panel& panel, int64_t count, WinogradOutputArgs& args) {
    const auto first = static_cast<size_t>(at_.sample * conv_.columns + panel.column);
    args.set_pivot = moments_.count_more(first, columns_of(panel, panel, kernels_.width), count, args);
  }

  const KernelTable& kernels_;
  const GatherConv& conv_;
  Form form_;
  Triple block_;
  Weights weights_;
  MomentParts& all_moments_;
  MomentSums moments_;
  bool past_caches_;
  bool lines_ahead_;
  std::vector<std::pair<int64_t, int64_t>> stretches_;  // of the output: where, and how many positions, to be asked for
  int64_t positions_ = 0, bytes_ = 0;                   // of all; of a panel in each
  int64_t first_block_ = 0;
  int64_t current_ = -1;
  BlockPlace at_ = {};
  InputPoints v_ = {};
};

}  // namespace

bool three_neighbours(const GatherAxis& a) { return a.stride == 1 && a.taps.size() == 3 && consecutive(a.taps); }

Triple tiles_of(const GatherConv& c) {
  return {c.axis[0].out, ceil_div(c.axis[1].out, tile_side), ceil_div(c.axis[2].out, tile_side)};
}

int64_t input_values(const PointFormat& format, const GatherConv& c, const BlockPlace& block) {
  const int64_t planes = block.size[0] + depth_taps(c) - 1;
  // A row beyond the last is read, and dropped, by the partner of an odd last row.
  const int64_t channels = ceil_div(c.channels, format.group) * format.group;
  return points * planes * block.size[1] * ceil_div(block.size[2], format.tiles) * channels + format.group;
}

InputPoints transform_input(const PointFormat& format, const GatherConv& c, const BlockPlace& block, void* to) {
  const GatherAxis& height = c.axis[1];
  const int64_t planes = block.size[0] + depth_taps(c) - 1;
  const int64_t line = ceil_div(block.size[2], format.tiles) * format.group;
  const int64_t plane = block.size[1] * line;
  const int64_t group = planes * plane;
  const int64_t point = ceil_div(c.channels, format.group) * group;
  auto* v = static_cast<std::byte*>(to);
  WinogradInputArgs args = {};
  args.width = c.axis[2].in;
  args.first = tile_side * block.begin[2] + c.axis[2].taps[0];
  args.tiles = block.size[2];
  args.point_step = point;
  args.tile_step = format.group;
  if (c.norm != nullptr) {
    args.activation = static_cast<int>(c.norm->activation);
    args.slope = c.norm->slope;
  }
  // Channels [begin, end), of which `in` holds the first at value `first`.
  const auto add_part = [&](ConstBuffer in, int64_t first, int64_t pitch, int64_t begin, int64_t end) {
    args.pitch = pitch;
    const int64_t row_bytes = args.width * pitch * size_of(in.dtype);
    const auto transform = format.transform[type_index(in.dtype)];
    for (int64_t channel = begin; channel < end; channel += args.channels) {
      args.channels = std::min(end, (channel / format.group + 1) * format.group) - channel;
      if (c.norm != nullptr) {
        args.mean = c.norm->mean + block.sample * c.channels + channel;
        args.scale = c.norm->scale + block.sample * c.channels + channel;
        args.shift = c.norm->shift + block.sample * c.channels + channel;
      }
      const auto* sample = static_cast<const std::byte*>(in.data) + (first + channel - begin) * size_of(in.dtype);
      const auto row_at = [&](int64_t d, int64_t h, int64_t i) -> const void* {
        const int64_t z = block.begin[0] + d + c.axis[0].taps[0], y = tile_side * (block.begin[1] + h) + height.taps[0] + i;
        const bool inside = z >= 0 && z < c.axis[0].in && y >= 0 && y < height.in;
        return inside ? sample + (z * height.in + y) * row_bytes : nullptr;
      };
      const int64_t at = channel / format.group * group + channel % format.group;
      for (int64_t d = 0; d < planes; ++d) {
        for (int64_t h = 0; h < block.size[1]; ++h) {
          set_rows(args, 4, planes, block.size[1], d, h, row_at);
          args.v = v + (d * plane + h * line + at) * format.value_bytes;
          transform(args);
        }
      }
    }
  };
  const int64_t positions = block.sample * c.axis[0].in * height.in * c.axis[2].in, rest = c.second.channels;
  add_part(c.in, c.in_offset + positions * c.in_pitch, c.in_pitch, 0, c.channels - rest);
  if (rest > 0) add_part(c.second.buffer, positions * rest, rest, c.channels - rest, c.channels);
  return {v, plane, group, point};
}

namespace {

// Every block reads all weights: a little more than the second-level cache is better than blocks of fewer rows.
constexpr int64_t least_rows = 28;

// Values of transformed input that a block of two sides may have.
int64_t input_budget(const GatherConv& c, const Form& form, int64_t least) {
  constexpr int64_t most_bytes = int64_t{8} << 20;
  const int64_t channels = c.channels * form.point_bytes();
  const int64_t rows = form.points_first ? std::min(l2_bytes() / 2 / channels, most_bytes / (points * channels)) : 0;
  return std::max(l2_bytes() / 2 / form.point_bytes(), std::max(least, rows) * points * c.channels);
}

// The cubes of a block stay in the second-level cache beside a strip of planes and a part of the sums.
Triple choose_cubes(const GatherConv& c, double vectors, int64_t tile_rows, int64_t least, const Form& form) {
  const int64_t room = std::min(l2_bytes() * 5 / 8, l2_bytes() * 5 / 6 - strip_bytes());
  const int64_t budget = std::max(room / form.point_bytes(), least * form.points * c.channels);
  const Triple all = tiles_of(c, form);
  const double sums = static_cast<double>(form.points * c.channels) * vectors / (form.pairs != nullptr ? pair_speed : 1);
  return cheapest_block(all, {1, 1, std::min<int64_t>(all[2], 8)}, [&](const Triple& block) {
    const auto rows = static_cast<double>(product(block)), channels = static_cast<double>(c.channels);
    if (form.points * product(block) * c.channels > budget) return std::numeric_limits<double>::infinity();
    // Neighbouring blocks transform two planes twice, and neighbouring strips read two columns twice.
    const double planes = static_cast<double>(points) * channels * (2 + 2 / static_cast<double>(block[0])) *
                          (1 + 0.5 / static_cast<double>(strip_of(c, block)));
    const double transform = 0.25 * planes + 0.1 * static_cast<double>(form.points) * channels;
    const double filled = static_cast<double>(ceil_div(product(block), tile_rows) * tile_rows) / rows;
    return idle_factor(block_count(c.batch, all, block)) * (filled * sums + transform + (4 * sums + 2000.0 * vectors) / rows);
  });
}

}  // namespace

Triple choose_tiles(const GatherConv& c, const TileCost& cost_of) {
  const Triple all = tiles_of(c);
  const bool large = c.axis[0].in * c.axis[1].in * c.axis[2].in * c.channels * float_bytes >= far_bytes();
  return cheapest_block(all, {1, 1, std::min<int64_t>(all[2], 8)}, [&](const Triple& block) {
    const int64_t floats = input_floats(c, block);
    if (floats + product(block) * cost_of.floats_a_row > cost_of.budget) return std::numeric_limits<double>::infinity();
    const auto rows = static_cast<double>(product(block));
    // Blocks below each other read two rows again, from memory where the input is larger than the caches. And each row is a call.
    const double again = large ? 1.5 * static_cast<double>(c.channels) / static_cast<double>(block[1]) : 0;
    const double transform = 0.25 * static_cast<double>(floats) / rows + again + 60 / static_cast<double>(block[2]);
    const double filled = static_cast<double>(ceil_div(block[2], cost_of.tiles) * cost_of.tiles) / static_cast<double>(block[2]) *
                          static_cast<double>(ceil_div(product(block), cost_of.rows) * cost_of.rows) / rows;
    const int64_t blocks = block_count(c.batch, all, block);
    const double fixed = cost_of.fixed * static_cast<double>(blocks) / static_cast<double>(c.batch * product(all));
    return idle_factor(blocks) * (filled * cost_of.sums / cost_of.speed + transform + fixed);
  }, cost_of.tiles);
}

bool suits_winograd(const KernelTable& kernels, const GatherConv& c, double speed) {
  const GatherAxis& depth = c.axis[0];
  const int64_t taps = depth_taps(c);
  const bool along_depth = depth.stride == 1 && taps > 0 && taps <= max_depth_taps && consecutive(depth.taps);
  if (!along_depth || !three_neighbours(c.axis[1]) || !three_neighbours(c.axis[2])) return false;
  // Cycles saved in the sums against those of the transforms: the weights', and each tile's two.
  const auto vectors = static_cast<double>(ceil_div(c.columns, kernels.width));
  const auto channels = static_cast<double>(c.channels), read = channels / kernels.width;
  const auto tiles = static_cast<double>(c.batch * product(tiles_of(c)));
  const double saved = tiles * static_cast<double>(taps) * channels * vectors * (36 - 16) / speed;
  const double spent = static_cast<double>(taps) * channels * vectors * 300 +
                       tiles * (64 * read + 60 * vectors);
  return saved > spent;
}

bool suits_winograd3(const KernelTable& kernels, const GatherConv& c, double speed) {
  if (!three_neighbours(c.axis[0])) return false;
  // Cycles saved in the sums against those of the third side's transforms and of its weights.
  const auto vectors = static_cast<double>(ceil_div(c.columns, kernels.width));
  const auto channels = static_cast<double>(c.channels), read = channels / kernels.width;
  const Triple tiles = tiles_of(c);
  const auto depth = static_cast<double>(tiles[0]);
  const double saved = channels * vectors * (48 * depth - 64 * std::ceil(depth / 2)) / speed;
  const double spent = depth * (144 * read + 120 * vectors);
  return static_cast<double>(c.batch * tiles[1] * tiles[2]) * (saved - spent) > 500 * channels * vectors;
}

bool suits_pairs(const GatherConv& c) { return c.channels % 2 == 0; }

void winograd_conv(const KernelTable& kernels, const GatherConv& conv, bool three, const PairTable* pairs) {
  const std::vector<Panel> panels = split_columns(conv.columns, kernels.width);
  const auto vectors = static_cast<double>(ceil_div(conv.columns, kernels.width));
  const int64_t tile_rows = 2 * kernels.pairs[panels.front().vectors - 1];
  Form form = three ? cube_form : plain_form(conv);
  form.pairs = pairs;
  const double sums = static_cast<double>(points * depth_taps(conv) * conv.channels) * vectors;
  const bool avx2 = kernels.width < 16;  // its second-level caches are small, its products slow beside them
  const int64_t rows = avx2 ? 2 * least_rows : least_rows, cubes = avx2 ? 16 : least_rows;
  form.points_first = !three && rows * points * conv.channels * form.point_bytes() > l2_bytes() * 3 / 2;
  const Triple block =
      three ? choose_cubes(conv, vectors, tile_rows, cubes, form)
            : choose_tiles(conv, {.sums = sums,
                                  .fixed = sums + 2000.0 * vectors,
                                  .floats_a_row = 0,
                                  .budget = input_budget(conv, form, rows),
                                  .speed = pairs != nullptr ? pair_speed : 1,
                                  .rows = tile_rows});
  MomentParts moments;
  const auto count = static_cast<int64_t>(panels.size());
  const int64_t blocks = block_count(conv.batch, tiles_of(conv, form), block), most = panels_at_a_time(kernels, conv, form);
  for (int64_t first = 0; first < count; first += most) {
    const std::vector<Panel> some(panels.begin() + first, panels.begin() + std::min(first + most, count));
    const Weights weights = transform_weights(kernels, conv, form, some);
    run_blocks(blocks, some, multiply_adds(conv) / ceil_div(count, most),
               [&] { return TileRunner(kernels, conv, form, block, weights, moments); });
  }
  if (conv.moments != nullptr) moments.write(conv.moments);
}

}  // namespace voxlab::cpu
