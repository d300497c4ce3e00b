// Weight gradient by F(2x2, 3x3) or F(2x2x2, 3x3x3): the adjoint of winograd_conv. At each point the gradient is a matrix
// product over tiles, of two sides one for each tap along D; the products are turned into taps at the end.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

#include "runtime/backend/cpu/dense/blocks.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/dense/winograd.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {
namespace {

constexpr int64_t float_bytes = sizeof(float);
constexpr int64_t points = winograd_points;
using Triple = std::array<int64_t, 3>;

struct Call {
  const KernelTable& kernels;
  const GatherConv& conv;
  ConstBuffer dy;
  float* dw;
  int64_t dw_pitch;
  std::vector<Panel> panels;
  bool cube;  // three sides
  const PairTable* pairs;
  Triple block = {};

  int64_t taps() const { return static_cast<int64_t>(conv.axis[0].taps.size()); }
  // Products at a point along H and W: of each tap along D, or of each point of a cube.
  int64_t depths() const { return cube ? winograd_depth_points : taps(); }
  int64_t rows() const { return depths() * conv.channels; }  // of their sums
  // Tiles along D are planes, or pairs of them.
  Triple tiles() const {
    Triple all = tiles_of(conv);
    if (cube) all[0] = ceil_div(all[0], winograd_side);
    return all;
  }
  BlockPlace planes_of(BlockPlace block) const {
    if (!cube) return block;
    block.begin[0] *= winograd_side;
    block.size[0] *= winograd_side;
    return block;
  }
  // Of a block: tiles, or pairs of neighbours in a row.
  int64_t terms(const BlockPlace& block) const {
    return block.size[0] * block.size[1] * ceil_div(block.size[2], pairs != nullptr ? 2 : 1);
  }
  // Channels lie together that are whole vectors and whole tiles, or all.
  int64_t group() const {
    const int64_t width = kernels.width, tile = 2 * kernels.unit_pairs[panels.front().vectors - 1];
    return std::min(std::lcm(width, tile), ceil_div(conv.channels, width) * width);
  }
  PointFormat input_format() const {
    return pairs != nullptr ? PointFormat{pairs->winograd_input_pairs, float_bytes, 2, group()}
                            : PointFormat{&kernels.winograd_input, float_bytes, 1, group()};
  }
  int64_t columns() const { return vectors_of(panels) * kernels.width; }
  int64_t gradient_floats(const BlockPlace& block) const { return points * terms(block) * columns(); }
};

// What a block adds to the sums: its input and dy, [point][panel][plane][tile row][tile or pair][column of
// the panel], at the points along H and W.
struct BlockPoints {
  BlockPlace planes;
  InputPoints input;
  const float* gradient;
};

// The same at one point, as products read it: input of a group of channels, dy of a panel.
struct Factors {
  const float *input, *gradient;
  int64_t input_group, input_depth, gradient_depth;  // from one group, tap or point along D to the next
  int64_t terms;
};

const float* transform_gradient(const Call& call, const BlockPlace& block, float* p) {
  const GatherConv& c = call.conv;
  const int64_t terms = call.terms(block), bytes = size_of(call.dy.dtype);
  WinogradInputArgs args = {};
  args.pitch = c.out_step[2];
  args.width = c.axis[2].out;
  args.first = winograd_side * block.begin[2];
  args.tiles = block.size[2];
  args.point_step = terms * call.columns();
  for (const Panel& panel : call.panels) {
    args.tile_step = panel.vectors * call.kernels.width;
    args.channels = columns_of(panel, panel, call.kernels.width);
    const int64_t line = terms / (block.size[0] * block.size[1]) * args.tile_step;
    const auto* sample =
        static_cast<const std::byte*>(call.dy.data) + (c.out_offset + block.sample * c.out_batch + panel.column) * bytes;
    const auto row_at = [&](int64_t d, int64_t h, int64_t i) -> const void* {
      const int64_t z = block.begin[0] + d, y = winograd_side * (block.begin[1] + h) + i;
      const bool inside = z < c.axis[0].out && y < c.axis[1].out;
      return inside ? sample + (z * c.out_step[0] + y * c.out_step[1]) * bytes : nullptr;
    };
    for (int64_t d = 0; d < block.size[0]; ++d) {
      for (int64_t h = 0; h < block.size[1]; ++h) {
        set_rows(args, winograd_side, block.size[0], block.size[1], d, h, row_at);
        args.v = p + terms * panel.column + (d * block.size[1] + h) * line;
        (call.pairs != nullptr ? call.pairs->winograd_gradient_pairs[type_index(call.dy.dtype)] : call.kernels.winograd_gradient)(args);
      }
    }
  }
  return p;
}

BlockPoints transform_block(const Call& call, const BlockPlace& block, float* input, float* gradient) {
  return {block, transform_input(call.input_format(), call.conv, block, input), transform_gradient(call, block, gradient)};
}

// The third side at one point: planes of input and of dy to four points of D.
Factors transform_depth(const Call& call, const BlockPoints& block, int64_t point) {
  const auto& size = block.planes.size;
  const int64_t group = call.group(), groups = ceil_div(call.conv.channels, group), columns = call.columns();
  const int64_t cubes = size[0] / winograd_side, place = size[1] * size[2], terms = cubes * place;
  const int64_t input_depth = groups * terms * group, gradient_depth = terms * columns;
  float* input = scratch(Purpose::deep, winograd_depth_points * (input_depth + gradient_depth) + group);
  float* gradient = input + winograd_depth_points * input_depth + group;  // the input's last row may be read beyond its end
  const float* from = static_cast<const float*>(block.input.data) + point * block.input.point;
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t d = 0; d < cubes; ++d)
      call.kernels.winograd_depth_input(from + g * block.input.group + winograd_side * d * block.input.plane, block.input.plane,
                                        place * group, input + (g * cubes + d) * place * group, input_depth);
  }
  const float* dy = block.gradient + point * winograd_side * gradient_depth;
  for (const Panel& panel : call.panels) {
    const int64_t plane = place * panel.vectors * call.kernels.width;
    for (int64_t d = 0; d < cubes; ++d)
      call.kernels.winograd_depth_gradient(dy + winograd_side * (terms * panel.column + d * plane), plane, plane,
                                           gradient + terms * panel.column + d * plane, gradient_depth);
  }
  return {input, gradient, terms * group, input_depth, gradient_depth, terms};
}

Factors factors_at(const Call& call, const BlockPoints& block, int64_t point) {
  if (call.cube) return transform_depth(call, block, point);
  const int64_t terms = call.terms(block.planes);
  return {static_cast<const float*>(block.input.data) + point * block.input.point, block.gradient + point * terms * call.columns(),
          block.input.group, block.input.plane, 0, terms};
}

// Sums of channels [channel, channel + channels), whole groups, and some panels from `column` on: [point][tap or point
// along D][channel][column].
struct Sums {
  float* data;
  int64_t channel, channels;
  int64_t column, pitch;
};

// u[channel, column] = or += sum over terms of input[term, channel] * gradient[term, column], for one panel, point along H
// and W, and tap or point along D.
void add_panel(const Call& call, const Panel& panel, const Factors& factors, int64_t point, int64_t depth, bool accumulate,
               const Sums& sums) {
  const Run run = {0, 0};
  alignas(64) float dropped[max_panel_vectors * 16] = {};
  float* to[max_tile_rows];
  const int64_t group = call.group(), most = call.kernels.unit_pairs[panel.vectors - 1];
  const auto* tiles = (call.pairs != nullptr ? call.pairs->unit_tile : call.kernels.unit_tile)[panel.vectors - 1];
  const float* input = factors.input + depth * factors.input_depth + sums.channel / group * factors.input_group;
  float* u = sums.data + (point * call.depths() + depth) * sums.channels * sums.pitch + panel.column - sums.column;
  TileArgs args = {};
  args.k_step = group * float_bytes;
  args.runs = &run;
  args.run_count = 1;
  args.k = factors.terms;
  args.ldb = panel.vectors * call.kernels.width;
  args.b = factors.gradient + depth * factors.gradient_depth + factors.terms * panel.column;
  args.c = to;
  args.last_columns = panel.last_columns;
  args.accumulate = accumulate;
  for (int64_t first = 0; first < sums.channels; first += group, input += factors.input_group) {
    const int64_t channels = std::min(group, sums.channels - first), pairs = ceil_div(channels, 2), count = ceil_div(pairs, most);
    for (int64_t t = 0; t < count; ++t) {
      const int64_t from = 2 * share(pairs, t, count), end = 2 * share(pairs, t + 1, count);
      for (int64_t m = from; m < end; ++m) to[m - from] = m < channels ? u + (first + m) * sums.pitch : dropped;
      args.a = reinterpret_cast<const char*>(input + from);
      tiles[(end - from) / 2 - 1](args);
    }
  }
}

// Rows [begin, end) of the sums, turned into taps of the gradient.
void store_taps(const Call& call, const Sums& sums, int64_t columns, int64_t begin, int64_t end) {
  const int64_t point = call.depths() * sums.channels * sums.pitch;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t tap = row / sums.channels, channel = sums.channel + row % sums.channels;
    call.kernels.winograd_weight_gradient(sums.data + row * sums.pitch, point, columns,
                                          call.dw + (9 * tap * call.conv.channels + channel) * call.dw_pitch + sums.column,
                                          call.conv.channels * call.dw_pitch);
  }
}

// Each thread sums up its own blocks, which stay in its cache.
void sum_by_blocks(const Call& call) {
  const GatherConv& c = call.conv;
  const Triple tiles = call.tiles();
  const int64_t threads = task_grain(2, multiply_adds(c)) > 1 ? 1 : thread_count();
  const int64_t blocks = block_count(c.batch, tiles, call.block), parts = std::min(threads, blocks);
  const int64_t floats = points * call.rows() * c.columns;
  float* u = scratch(Purpose::partial, parts * floats);
  parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const Sums sums = {u + part * floats, 0, c.channels, 0, c.columns};
      const int64_t first = share(blocks, part, parts);
      for (int64_t index = first; index < share(blocks, part + 1, parts); ++index) {
        const BlockPlace place = call.planes_of(place_block(tiles, call.block, index));
        const BlockPoints block = transform_block(call, place, scratch(Purpose::tile, input_values(call.input_format(), c, place)),
                                                  scratch(Purpose::rows, call.gradient_floats(place)));
        for (int64_t point = 0; point < points; ++point) {
          const Factors factors = factors_at(call, block, point);
          for (const Panel& panel : call.panels)
            for (int64_t depth = 0; depth < call.depths(); ++depth) add_panel(call, panel, factors, point, depth, index > first, sums);
        }
      }
    }
  });
  for (int64_t part = 1; part < parts; ++part) {
    parallel_for(floats, 4096, [&](int64_t begin, int64_t end) {
      call.kernels.add(u + part * floats + begin, end - begin, u + begin);
    });
  }
  const int64_t rows = call.taps() * c.channels, depth = c.channels * c.columns;
  if (call.cube) {
    parallel_for(points, task_grain(points, 100 * points * depth), [&](int64_t begin, int64_t end) {
      for (int64_t point = begin; point < end; ++point)
        call.kernels.winograd_depth_weight_gradient(u + point * winograd_depth_points * depth, depth, depth);
    });
  }
  parallel_for(rows, task_grain(rows, 100 * rows * c.columns), [&](int64_t begin, int64_t end) {
    store_taps(call, {u, 0, c.channels, 0, c.columns}, c.columns, begin, end);
  });
}

// Sums too large to be held once a thread, or in the caches: blocks are transformed first, as many as some memory holds, then each
// task makes a part of the sums, and of the gradient, from all of them.
void sum_by_channels(const Call& call) {
  const GatherConv& c = call.conv;
  const Triple tiles = tiles_of(c);
  const BlockPlace whole = {0, {}, call.block};
  const int64_t input_floats = input_values(call.input_format(), c, whole), gradient_floats = call.gradient_floats(whole);
  constexpr int64_t most_bytes = int64_t{64} << 20;
  const int64_t all_blocks = block_count(c.batch, tiles, call.block);
  const int64_t held = std::clamp<int64_t>(most_bytes / float_bytes / (input_floats + gradient_floats), 1, all_blocks);
  const int64_t rounds = ceil_div(all_blocks, held);

  // A block's input at a point, of the channels of a task, meets the task's panels in the second-level cache.
  const int64_t group = call.group();
  const int64_t width = call.kernels.width, panel_columns = call.panels.front().vectors * width;
  const int64_t column_floats = points * call.depths();
  const int64_t fit =
      std::min(l2_bytes() / 3 / call.terms(whole), l2_bytes() / 2 / (column_floats * panel_columns)) / float_bytes / group * group;
  const int64_t channels = std::clamp<int64_t>(fit, std::min(group, c.channels), c.channels);
  const auto panels = static_cast<int64_t>(call.panels.size());
  const int64_t together = std::clamp<int64_t>(2 * l2_bytes() / float_bytes / (column_floats * channels * panel_columns), 1, panels);
  const int64_t chunks = ceil_div(c.channels, channels), panel_groups = ceil_div(panels, together);

  const auto grain = [&](int64_t tasks) { return task_grain(tasks, multiply_adds(c)); };
  float* inputs = scratch(Purpose::tile, held * input_floats);
  float* gradients = scratch(Purpose::rows, held * gradient_floats);
  const int64_t task_floats = column_floats * channels * (together * panel_columns + width);  // the last panel may be wider
  float* kept = rounds > 1 ? scratch(Purpose::weights, chunks * panel_groups * task_floats) : nullptr;
  std::vector<BlockPoints> blocks(static_cast<size_t>(held));
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t first = round * held, count = std::min(held, all_blocks - first);
    parallel_for(count, grain(count), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        blocks[static_cast<size_t>(i)] = transform_block(call, place_block(tiles, call.block, first + i), inputs + i * input_floats,
                                                         gradients + i * gradient_floats);
    });
    parallel_for(chunks * panel_groups, grain(chunks * panel_groups), [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t chunk = task % chunks, part = task / chunks;
        const int64_t from = share(panels, part, panel_groups), to = share(panels, part + 1, panel_groups);
        const Panel& last = call.panels[static_cast<size_t>(to - 1)];
        const int64_t begin_channel = chunk * channels, column = call.panels[static_cast<size_t>(from)].column;
        const int64_t columns = columns_of(call.panels[static_cast<size_t>(from)], last, call.kernels.width);
        const Sums sums = {kept != nullptr ? kept + task * task_floats : scratch(Purpose::partial, task_floats), begin_channel,
                           std::min(channels, c.channels - begin_channel), column, columns};
        for (int64_t point = 0; point < points; ++point)
          for (int64_t i = 0; i < count; ++i) {
            const Factors factors = factors_at(call, blocks[static_cast<size_t>(i)], point);
            for (int64_t depth = 0; depth < call.depths(); ++depth)
              for (int64_t panel = from; panel < to; ++panel)
                add_panel(call, call.panels[static_cast<size_t>(panel)], factors, point, depth, round + i > 0, sums);
          }
        if (round + 1 == rounds) store_taps(call, sums, columns, 0, call.taps() * sums.channels);
      }
    });
  }
}

// Floats that a block's points take, those along D at one point included.
int64_t cube_floats(const GatherConv& c, const Triple& block) {
  const int64_t planes = winograd_side * block[0], place = block[1] * block[2];
  return place * (points * ((planes + 2) * c.channels + planes * c.columns) +
                  winograd_depth_points * block[0] * (c.channels + c.columns));
}

// The cheapest block of cubes, by the cycles of one; each reads and writes all sums.
Triple choose_cubes(const GatherConv& c, const Triple& all, double vectors, int64_t budget) {
  const auto channels = static_cast<double>(c.channels);
  const double sums = static_cast<double>(points * winograd_depth_points) * channels * vectors;
  return cheapest_block(all, {1, 1, std::min<int64_t>(all[2], 8)}, [&](const Triple& block) {
    const int64_t floats = cube_floats(c, block);
    if (floats > budget) return std::numeric_limits<double>::infinity();
    const auto rows = static_cast<double>(product(block));
    const double again = 3 * channels / static_cast<double>(block[1]);
    const double calls = 120 * (1 + 1 / static_cast<double>(block[0])) / static_cast<double>(block[2]);
    const double transform = 0.25 * static_cast<double>(floats) / rows + again + calls;
    return idle_factor(block_count(c.batch, all, block)) * (sums + transform + 4 * sums / rows);
  });
}

}  // namespace

bool suits_winograd_wgrad(const KernelTable& kernels, const GatherConv& c, double speed) {
  constexpr int64_t least_channels = 8;  // fewer leave most of a tile empty
  return c.channels >= least_channels && suits_winograd(kernels, c, speed);
}

bool suits_winograd3_wgrad(const KernelTable& kernels, const GatherConv& c) {
  if (!three_neighbours(c.axis[0])) return false;
  // Cycles that a pair of tiles along D saves in products against those of the third side of both factors.
  const auto channels = static_cast<double>(c.channels), vectors = static_cast<double>(ceil_div(c.columns, kernels.width));
  const auto depth = static_cast<double>(c.axis[0].out), cubes = std::ceil(depth / winograd_side);
  const double saved = channels * vectors * points * (3 * depth - winograd_depth_points * cubes);
  const double spent = 16 * points * cubes * (channels / kernels.width + vectors);
  // All blocks' sums are made in one place, which every block reads and writes: not too large for it, and not for few cubes.
  const int64_t sums = points * winograd_depth_points * c.channels * c.columns;
  return saved > spent && sums * float_bytes < 8 * l2_bytes() && c.batch * product(tiles_of(c)) >= 32 * c.columns;
}

void winograd_wgrad(const KernelTable& kernels, const GatherConv& conv, ConstBuffer dy, float* dw, int64_t pitch, bool three,
                    const PairTable* pairs) {
  const auto vectors = static_cast<double>(ceil_div(conv.columns, kernels.width));
  Call call = {kernels, conv, dy, dw, pitch, split_columns(conv.columns, kernels.width), three, pairs};
  // Every block reads and writes all sums once, some two cycles a vector each: with many channels, blocks that
  // leave the second-level cache are better than small ones, the more so where the sums come from memory.
  const int64_t floats = points * call.rows() * conv.columns;
  if (three) {
    constexpr int64_t least_cubes = 64;
    const int64_t floats_a_cube = points * (3 * conv.channels + 2 * conv.columns);
    call.block = choose_cubes(conv, call.tiles(), vectors, std::max(l2_bytes() / 2 / float_bytes, least_cubes * floats_a_cube));
    return sum_by_blocks(call);
  }
  const int64_t least_rows = floats * float_bytes >= far_bytes() ? 224 : 112;
  const double sums = static_cast<double>(points * call.rows()) * vectors;
  const int64_t floats_a_row = points * (2 * conv.channels + conv.columns);
  call.block = choose_tiles(conv, {.sums = sums,
                                   .fixed = 4 * sums,
                                   .floats_a_row = points * conv.columns,
                                   .budget = std::max(l2_bytes() / 2 / float_bytes, least_rows * floats_a_row) *
                                             (pairs != nullptr ? 2 : 1),
                                   .speed = pairs != nullptr ? pair_speed : 1,
                                   .tiles = pairs != nullptr ? 2 : 1});
  const bool large = floats * float_bytes >= 4 * l2_bytes();
  const bool few_tiles = conv.batch * product(tiles_of(conv)) * points * conv.channels < 4 * floats;
  (large || few_tiles ? sum_by_channels : sum_by_blocks)(call);
}

}  // namespace voxlab::cpu
