// How a weight gradient on tiles is cut: which taps read what, which block of positions and which slice of input channels cost
// least.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "runtime/backend/cpu/dense/blocks.h"
#include "runtime/backend/cpu/dense/kernels_amx.h"

namespace voxlab::cpu::wgrad {

using Triple = std::array<int64_t, 3>;
constexpr int64_t tile_floats = amx_rows * amx_columns;

// Along one axis tap k reads position (output + shift[k] + first) * stride + residues[residue[k]].
struct Taps {
  int64_t first = 0, halo = 0;
  bool odd = false;  // some shift is
  std::vector<int64_t> residues, shift, residue;
};

// A column of tiles of C: a tap of the plane and a tile of input channels.
struct Column {
  size_t kh, kw;
  int64_t channels;
};

// First those whose shift along W is even, then the odd.
std::vector<Column> columns_of(const std::array<Taps, 3>& taps, int64_t in_tiles);

struct Call {
  const KernelTable& kernels;
  const AmxTable& amx;
  const ConvGeometry& g;
  ConstBuffer x, dy;  // f32, or for plain bf16 products bf16
  SecondInput second;
  int64_t group;
  int64_t joined;  // taps along W that are taken as channels, for with few of them they are one run of memory: all, or 1
  int64_t first_in, in, out;  // channels of the group: a slice of the input's, all of the output's
  bool split;
  std::array<Taps, 3> taps;
  std::vector<Column> plane_columns;  // of one tap along D
  bool share_rows;  // of tiles, not blocks, among threads: large sums are not held once a thread
  Triple block;
  float* dw;
  bool past_caches;
  uint16_t* turned;  // all of dy as tiles of A, where it is kept from slice to slice

  int64_t first_channels() const { return g.in_channels - second.channels; }  // of x
  int64_t all_in() const { return joined * g.in_channels / g.groups; }
  int64_t in_tiles() const { return ceil_div(in, amx_columns); }
  int64_t out_tiles() const { return ceil_div(out, amx_rows); }
  int64_t parts() const { return split ? 2 : 1; }
  int64_t columns() const { return product(g.kernel) / joined * in_tiles(); }  // of tiles of C
};

// How the positions under a block lie.
struct Layout {
  int64_t pitch;   // of a row of x; even, so that no tap along H is an odd offset
  int64_t rows;    // of x
  int64_t phases;  // of dy: 1 where every offset is even
  int64_t blocks;  // of K: a plane of dy, but for the border of its last row
  int64_t tiles;   // of B, for one tile of channels
  int64_t planes;  // of dy multiplied at a time, so that sums are not fetched for a few products
  bool far_sums;   // they lie beyond the second-level cache

  Layout(const Call& c, const Triple& size) {
    pitch = ceil_div(size[2] + c.taps[2].halo, 2) * 2;
    rows = size[1] + c.taps[1].halo;
    phases = c.taps[2].odd ? 2 : 1;
    blocks = ceil_div((size[1] - 1) * pitch + size[2] + phases - 1, amx_depth);
    tiles = blocks + ceil_div(c.taps[1].halo * pitch + c.taps[2].halo + 1, amx_depth);
    far_sums = c.share_rows;
    planes = std::clamp<int64_t>((far_sums ? most_whole : most_blocks(c)) / blocks, 1, size[0]);
  }
  // Of a piece of K: few visits to sums against tiles of A that come from the second-level cache.
  static int64_t most_blocks(const Call& c) { return c.split ? 16 : 48; }
  // Large sums are visited seldom: a plane's share of K is one piece, and tiles of B stay in the first-level cache while A
  // passes, the other way about than with pieces, for then whole rows of dw are written one after the other.
  static constexpr int64_t most_whole = 32;
  bool whole() const { return far_sums && blocks <= most_whole; }
  int64_t held_planes(const Call& c) const { return planes + c.taps[0].halo; }
  int64_t plane_tiles(const Call& c) const {
    return static_cast<int64_t>(c.taps[1].residues.size() * c.taps[2].residues.size()) * c.in_tiles() * tiles;
  }
  int64_t held_tiles(const Call& c) const {
    return static_cast<int64_t>(c.taps[0].residues.size()) * held_planes(c) * plane_tiles(c);
  }
};

// Whether slices share dy's tiles: all its planes are multiplied at a time.
bool keeps_gradient(const Call& c);
int64_t turned_halves(const Call& c);

// In cycles of a core, for one position of dy, all slices together.
double cost_of_slices(const Call& c);

// For a geometry alone: x, dy, group and the slice's first channel are the caller's to set.
Call cheapest_call(const ConvGeometry& g, bool split);

}  // namespace voxlab::cpu::wgrad
