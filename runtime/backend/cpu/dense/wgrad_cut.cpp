#include "runtime/backend/cpu/dense/wgrad_cut.h"

#include <limits>

#include "runtime/backend/cpu/dense/gather_conv.h"
#include "runtime/backend/cpu/dense/passes.h"

#if defined(__x86_64__)

namespace voxlab::cpu::wgrad {
namespace {

Taps taps_of(const ConvGeometry& g, size_t axis) {
  Taps t;
  const int64_t stride = g.stride[axis];
  for (int64_t k = 0; k < g.kernel[axis]; ++k) {
    const int64_t offset = k * g.dilation[axis] - g.pad[axis];
    const int64_t residue = (offset % stride + stride) % stride;
    t.shift.push_back((offset - residue) / stride);
    const auto found = std::find(t.residues.begin(), t.residues.end(), residue);
    t.residue.push_back(found - t.residues.begin());
    if (found == t.residues.end()) t.residues.push_back(residue);
  }
  const auto [low, high] = std::minmax_element(t.shift.begin(), t.shift.end());
  t.first = *low;
  t.halo = *high - *low;
  for (int64_t& s : t.shift) s -= t.first;
  t.odd = std::any_of(t.shift.begin(), t.shift.end(), [](int64_t s) { return s % 2 != 0; });
  return t;
}

}  // namespace

std::vector<Column> columns_of(const std::array<Taps, 3>& taps, int64_t in_tiles) {
  std::vector<Column> columns;
  for (const int64_t parity : {0, 1})
    for (size_t kh = 0; kh < taps[1].shift.size(); ++kh)
      for (int64_t t = 0; t < in_tiles; ++t)
        for (size_t kw = 0; kw < taps[2].shift.size(); ++kw)
          if (taps[2].shift[kw] % 2 == parity) columns.push_back({kh, kw, t});
  return columns;
}

namespace {

// How often each tile of C is visited.
int64_t visits(const Call& c, const Layout& lay, const Triple& block) {
  return block_count(c.g.batch, c.g.out(), block) * ceil_div(block[0], lay.planes);
}

bool keeps(const Call& c, const Triple& block) { return c.share_rows && c.in < c.all_in() && visits(c, Layout(c, block), block) == 1; }

// Of A in use beside some columns of B.
int64_t rows_in_use(const Call& c, const Layout& lay) {
  const int64_t rows = c.share_rows ? ceil_div(c.out_tiles(), thread_count()) : c.out_tiles();
  return lay.whole() ? rows : std::min<int64_t>(rows, 2);
}

// In cycles of a core, for one position of dy; constants as measured on Sapphire Rapids.
double cost_of(const Call& c, const Triple& block) {
  constexpr double tile_cycles = 20, sums_cycles = 80, far_sums_cycles = 300, write_cycles = 100;
  const double turn_cycles = c.split ? 1.6 : 0.8, pack_cycles = c.split ? 0.7 : 0.4;
  const Layout lay(c, block);
  const auto tiles_of_c = static_cast<double>(c.columns() * c.out_tiles());
  const double products = tile_cycles * (c.split ? 3 : 1) * tiles_of_c * static_cast<double>(lay.blocks);
  const double turning = turn_cycles * static_cast<double>(lay.phases * lay.blocks * amx_tile * c.out_tiles()) /
                         static_cast<double>(keeps(c, block) ? ceil_div(c.all_in(), c.in) : 1);
  const double packing = pack_cycles * static_cast<double>(lay.plane_tiles(c) * amx_tile) *
                         static_cast<double>(c.taps[0].residues.size()) *
                         static_cast<double>(block[0] + c.taps[0].halo) / static_cast<double>(block[0]);
  // What threads share is packed by each; sums shared by rows come from beyond the second-level cache.
  const double packers = c.share_rows ? static_cast<double>(thread_count()) : 1.0;
  const auto times = static_cast<double>(visits(c, lay, block));
  const double pieces = lay.whole() ? 1 : static_cast<double>(ceil_div(lay.blocks, Layout::most_blocks(c)));
  const double sums = tiles_of_c * (c.share_rows ? write_cycles + far_sums_cycles * (times - 1) + sums_cycles * (pieces - 1) * times
                                                 : sums_cycles * pieces * times);
  return (products + turning + packers * packing) / static_cast<double>(block[1] * block[2]) +
         sums / static_cast<double>(c.g.batch * product(c.g.out()));
}

Triple choose_block(const Call& c) {
  const int64_t budget = l2_bytes() * 3 / 4 / (amx_tile * static_cast<int64_t>(sizeof(uint16_t)));
  const Triple out = c.g.out();
  return cheapest_block(out, {1, 1, std::min<int64_t>(out[2], amx_depth)}, [&](const Triple& block) {
    const Layout lay(c, block);
    const int64_t held = (lay.held_tiles(c) + lay.phases * lay.planes * lay.blocks * rows_in_use(c, lay)) * c.parts();
    if (held > budget) return std::numeric_limits<double>::infinity();
    const double crowded = 3 * held > 2 * budget ? 1.3 : 1.0;  // sums and dy pass through the cache too
    const double idle = c.share_rows ? 1.0 : idle_factor(block_count(c.g.batch, out, block));
    return idle * cost_of(c, block) * crowded;
  });
}

// Taps along W that fill tiles better together.
int64_t joined_taps(const ConvGeometry& g) {
  const int64_t taps = g.kernel[2], channels = g.in_channels;
  if (g.groups > 1 || g.dilation[2] > 1 || channels >= amx_columns) return 1;
  return ceil_div(taps * channels, amx_columns) < taps ? taps : 1;
}

// Its input channels in slices of so many tiles.
Call call_of(const ConvGeometry& g, bool split, int64_t slice_tiles) {
  ConvGeometry one_column = g;
  Call c = {active_kernels(), active_amx(), g, {}, {}, {}, 0, joined_taps(g), 0, 0, g.out_channels / g.groups,
            split, {}, {}, false, {}, nullptr, false, nullptr};
  if (c.joined > 1) one_column.kernel[2] = 1;
  c.taps = {taps_of(g, 0), taps_of(g, 1), taps_of(one_column, 2)};
  c.in = std::min(c.all_in(), slice_tiles * amx_columns);
  c.plane_columns = columns_of(c.taps, c.in_tiles());
  const int64_t floats = c.out_tiles() * product(g.kernel) / c.joined * ceil_div(c.all_in(), amx_columns) * tile_floats;
  c.share_rows = 4 * floats > l2_bytes() / 2 && c.out_tiles() >= 2 * thread_count();
  c.block = choose_block(c);
  return c;
}

}  // namespace

bool keeps_gradient(const Call& c) { return keeps(c, c.block); }

int64_t turned_halves(const Call& c) {
  const Layout lay(c, c.block);
  return c.out_tiles() * lay.phases * lay.planes * lay.blocks * amx_tile * c.parts();
}

double cost_of_slices(const Call& c) { return static_cast<double>(ceil_div(c.all_in(), c.in)) * cost_of(c, c.block); }

// Where not even small blocks of all channels fit, slices of them do, in larger blocks whose sums are visited less often.
Call cheapest_call(const ConvGeometry& g, bool split) {
  constexpr int64_t least_slice = 2;
  int64_t tiles = ceil_div(joined_taps(g) * g.in_channels / g.groups, amx_columns);
  Call best = call_of(g, split, tiles);
  if (!best.share_rows) return best;
  double least = cost_of_slices(best);
  while (tiles > least_slice) {
    tiles = ceil_div(tiles, 2);
    Call call = call_of(g, split, tiles);
    const double cost = cost_of_slices(call);
    if (cost >= least) continue;
    least = cost;
    best.in = call.in;
    best.plane_columns = std::move(call.plane_columns);
    best.block = call.block;
  }
  return best;
}

}  // namespace voxlab::cpu::wgrad

#endif
