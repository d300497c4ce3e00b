// Weight gradients on tiles of bf16: dw[tap, ic, oc] sums x[position + tap, ic] dy[position, oc], a matrix product over
// positions for every tap. Of a plane of dy the tiles of A are [oc][position]; its rows are as long as those of x with
// their border, zero there, so that a tap is an offset. x makes the tiles of B, pairs of positions interleaved. dy is there
// once more a position later, so that odd offsets find their pairs. Strides: x falls into its residues.
#include "runtime/backend/cpu/dense/wgrad_cut.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "runtime/backend/cpu/dense/gather_conv.h"
#include "runtime/backend/cpu/dense/lines_ahead.h"
#include "runtime/backend/cpu/dense/passes.h"

namespace voxlab::cpu {

#if defined(__x86_64__)

namespace {

using namespace wgrad;

const std::byte* data_of(const ConstBuffer& b) { return static_cast<const std::byte*>(b.data); }

// A tile of sums, [oc][ic], to rows (tap, ic) of dw.
void write_tile(const Call& c, const float* sums, int64_t out_tile, int64_t column) {
  const auto in_plane = static_cast<int64_t>(c.plane_columns.size());
  const Column& at = c.plane_columns[static_cast<size_t>(column % in_plane)];
  const int64_t kernel_row = column / in_plane * c.g.kernel[1] + static_cast<int64_t>(at.kh);
  const int64_t tap = kernel_row * (c.g.kernel[2] / c.joined) + static_cast<int64_t>(at.kw);
  const int64_t ic = at.channels * amx_columns, oc = out_tile * amx_rows;
  c.amx.turn_sums({.sums = sums,
                   .rows = static_cast<int>(std::min(amx_rows, c.out - oc)),
                   .columns = static_cast<int>(std::min(amx_columns, c.in - ic)),
                   .out = c.dw + (tap * c.all_in() + c.first_in + ic) * c.g.out_channels + c.group * c.out + oc,
                   .out_step = c.g.out_channels,
                   .past_caches = c.past_caches});
}

// The products of blocks of positions with some tiles of output channels. Sums stay in u, [tile of oc][tap along D][column]
// of [oc][ic], until the last are added; where nobody else adds any, they then go to dw.
class Worker {
 public:
  Worker(const Call& call, std::atomic<bool>& finite)
      : c_(call), finite_(finite), zeros_(static_cast<size_t>(std::max(call.in, call.out)) * sizeof(float)), lay_(call, {1, 1, 1}) {
    c_.amx.begin();
    const auto phase = [&](size_t column) { return c_.taps[2].shift[c_.plane_columns[column].kw] % 2; };
    for (const size_t rows : {1, 2})
      for (size_t j = 0, end; j < c_.plane_columns.size(); j = end) {
        for (end = j + 1; end < std::min(j + 4 / rows, c_.plane_columns.size()) && phase(end) == phase(j);) ++end;
        groups_[rows - 1].push_back({static_cast<int64_t>(j), static_cast<int>(end - j), phase(j)});
      }
    const int64_t x_bytes = call.g.batch * product(call.g.in) * call.first_channels() * size_of(call.x.dtype);
    fetches_ = x_bytes >= far_bytes() && !call.share_rows && call.g.groups == 1 && call.in == call.all_in() && call.joined == 1;
  }
  ~Worker() { c_.amx.end(); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Blocks [first, last) and output tiles [from, to), whose sums are theirs `alone` or added to by others.
  void run(int64_t first, int64_t last, int64_t from, int64_t to, float* u, bool alone) {
    sums_.assign(c_.taps[0].shift.size(), Sums::none);
    for (int64_t i = first; i < last && finite_; ++i) {
      place(i);
      for (int64_t d = 0; d < at_.size[0]; d += lay_.planes) {
        const int64_t planes = std::min(lay_.planes, at_.size[0] - d);
        if (!pack_planes(d + planes + c_.taps[0].halo) || !turn_gradient(d, planes, from, to)) {
          finite_ = false;
          return;
        }
        plan_fetch(d + planes);
        const bool only = last - first == 1 && planes == at_.size[0] && lay_.whole();
        multiply(d, planes, from, to, u, only, alone && i + 1 == last);
      }
    }
    if (finite_) finish(from, to, u, alone);
  }

 private:
  enum class Sums : uint8_t { none, begun, written };  // of a tap along D

  // Columns that are multiplied together: all with one phase of dy.
  struct Group {
    int64_t first;
    int columns;
    int64_t phase;
  };

  void place(int64_t index) {
    at_ = place_block(c_.g.out(), c_.block, index);
    lay_ = Layout(c_, at_.size);
    packed_ = 0;
    const int64_t halves = lay_.held_tiles(c_) * amx_tile;
    b_ = half_scratch(Purpose::tile, halves * c_.parts());
    b_low_ = halves;
  }

  int64_t position(size_t axis, int64_t index, size_t residue) const {
    return (at_.begin[axis] + index + c_.taps[axis].first) * c_.g.stride[axis] + c_.taps[axis].residues[residue];
  }

  // The first tile of B of a plane (index modulo the planes held), of residues along D, H, W, of a tile of channels.
  uint16_t* tiles_of(int64_t index, size_t rd, size_t rh, size_t rw, int64_t channels) const {
    const int64_t held = lay_.held_planes(c_), slot = static_cast<int64_t>(rd) * held + index % held;
    const auto cell = static_cast<int64_t>(rh * c_.taps[2].residues.size() + rw);
    return b_ + (slot * lay_.plane_tiles(c_) + (cell * c_.in_tiles() + channels) * lay_.tiles) * amx_tile;
  }

  // Planes of x up to `end`, each in the place of the oldest.
  bool pack_planes(int64_t end) {
    bool finite = true;
    for (end = std::min(end, at_.size[0] + c_.taps[0].halo); packed_ < end; ++packed_)
      for (size_t rd = 0; rd < c_.taps[0].residues.size(); ++rd) {
        const int64_t d = position(0, packed_, rd);
        if (d < 0 || d >= c_.g.in[0]) continue;
        for (size_t rh = 0; rh < c_.taps[1].residues.size(); ++rh)
          for (size_t rw = 0; rw < c_.taps[2].residues.size(); ++rw)
            for (const Part& part : parts()) finite &= pack_cell(part, d, rd, rh, rw);
      }
    return finite;
  }

  // Rows of positions of which [from, end) lie in memory, the rest being zero.
  struct Plane {
    int64_t rows, pitch;  // positions
    int64_t from, end;
    int64_t step;  // bytes between positions
  };

  // Where positions of a plane from `first` on lie, across its rows. `row_at` gives where position 0 of a row would be, or
  // null for a row of zeros.
  template <class RowAt>
  void locate(const Plane& plane, const RowAt& row_at, int64_t first, int64_t count, const void** to) const {
    std::fill_n(to, count, static_cast<const void*>(zeros_.data()));
    for (int64_t row = first / plane.pitch; row < plane.rows && row * plane.pitch < first + count; ++row) {
      const std::byte* line = row_at(row);
      if (line == nullptr) continue;
      const int64_t start = row * plane.pitch, end = std::min(first + count, start + plane.end);
      int64_t p = std::max(first, start + plane.from);
      line += (p - start) * plane.step;
      for (; p < end; ++p, line += plane.step) to[p - first] = line;
    }
  }

  // Calls use(strip, args) for strips of a plane's positions from `first` on, args.at and the type set.
  template <class RowAt, class Use>
  void for_strips(const Plane& plane, const RowAt& row_at, DType dtype, int64_t first, int64_t strips, const Use& use) const {
    const void* at[amx_strip + amx_depth];
    locate(plane, row_at, first, amx_strip, at);
    AmxStripArgs args = {.at = at, .bf16 = dtype == DType::bf16, .low = 0};
    for (int64_t i = 0; i < strips; ++i) {
      locate(plane, row_at, first + i * amx_depth + amx_strip, amx_depth, at + amx_strip);
      use(i, args);
      std::copy(at + amx_depth, at + amx_depth + amx_strip, at);
    }
  }

  // Tiles [begin, end) of the slice's channels, which lie in one tensor, from its channel `first` on.
  struct Part {
    ConstBuffer x;
    int64_t channels, first;
    int64_t begin, end;
  };

  std::vector<Part> parts() const {
    const int64_t first = c_.first_channels(), tiles = c_.in_tiles(), cut = std::clamp<int64_t>((first - c_.first_in) / amx_columns, 0, tiles);
    if (c_.second.channels == 0) return {{c_.x, c_.g.in_channels, c_.group * c_.all_in() + c_.first_in, 0, tiles}};
    return {{c_.x, first, c_.first_in, 0, cut},
            {c_.second.buffer, c_.second.channels, std::max<int64_t>(0, c_.first_in - first), cut, tiles}};
  }

  bool pack_cell(const Part& part, int64_t d, size_t rd, size_t rh, size_t rw) {
    if (part.begin == part.end) return true;
    const int64_t stride = c_.g.stride[2], origin = position(2, 0, rw), bytes = size_of(part.x.dtype);
    // Columns that are inside of x.
    const auto column = [&](int64_t w, int64_t least) { return std::clamp(ceil_div(std::max<int64_t>(0, w), stride), least, lay_.pitch); };
    const int64_t from = column(-origin, 0);
    const Plane plane = {lay_.rows, lay_.pitch, from, column(c_.g.in[2] - origin, from), stride * part.channels * bytes};
    const auto row_at = [&](int64_t row) -> const std::byte* {
      const int64_t h = position(1, row, rh);
      if (h < 0 || h >= c_.g.in[1]) return nullptr;
      const int64_t line = ((at_.sample * c_.g.in[0] + d) * c_.g.in[1] + h) * c_.g.in[2];
      return data_of(part.x) + ((line + origin) * part.channels + part.first) * bytes;
    };
    if (c_.joined == 1) return pack_rows(part, plane, row_at, rd, rh, rw);
    // Borders lie inside of a position's taps: rows get theirs in a copy.
    const int64_t length = (lay_.pitch - 1) * stride + c_.joined, pixel = c_.g.in_channels * bytes;
    const int64_t begin = std::clamp<int64_t>(-origin, 0, length), end = std::clamp(c_.g.in[2] - origin, begin, length);
    auto* copy = reinterpret_cast<std::byte*>(scratch(Purpose::rows, lay_.rows * length * c_.g.in_channels));
    std::memset(copy, 0, static_cast<size_t>(lay_.rows * length * pixel));
    for (int64_t row = 0; row < lay_.rows; ++row)
      if (const std::byte* line = row_at(row); line != nullptr)
        std::memcpy(copy + (row * length + begin) * pixel, line + begin * pixel, static_cast<size_t>((end - begin) * pixel));
    const auto copied_row = [&](int64_t row) { return copy + row * length * pixel; };
    return pack_rows(part, {lay_.rows, lay_.pitch, 0, lay_.pitch, plane.step}, copied_row, rd, rh, rw);
  }

  template <class RowAt>
  bool pack_rows(const Part& part, const Plane& plane, const RowAt& row_at, size_t rd, size_t rh, size_t rw) {
    bool finite = true;
    for_strips(plane, row_at, part.x.dtype, 0, lay_.tiles, [&](int64_t i, AmxStripArgs& args) {
      args.low = c_.split ? b_low_ : 0;
      for (int64_t t = part.begin; t < part.end; ++t) {
        args.offset = (t - part.begin) * amx_columns;
        args.columns = static_cast<int>(std::min(amx_columns, c_.in - t * amx_columns));
        args.even = tiles_of(packed_, rd, rh, rw, t) + i * amx_tile;
        finite &= c_.amx.pack_strip(args);
      }
    });
    return finite;
  }

  // Planes of dy as tiles of A: [phase][tile of oc][plane][depth block]. The second phase begins a position earlier: its
  // products with pairs of x are those of an odd offset.
  bool turn_gradient(int64_t d, int64_t planes, int64_t from, int64_t to) {
    const Triple out = c_.g.out();
    const int64_t row = planes * lay_.blocks * amx_tile;
    const bool kept = c_.turned != nullptr;
    const int64_t halves = (kept ? c_.out_tiles() : to - from) * row;
    a_ = kept ? c_.turned + from * row : half_scratch(Purpose::weights, lay_.phases * halves * c_.parts());
    a_phase_ = halves;
    a_low_ = c_.split ? a_ + lay_.phases * halves : nullptr;
    if (kept && c_.first_in > 0) return true;
    const int64_t first = from * amx_rows;
    const int64_t channels = c_.out - first;
    const int64_t bytes = size_of(c_.dy.dtype);
    const Plane plane = {at_.size[1], lay_.pitch, 0, at_.size[2], c_.g.out_channels * bytes};
    bool finite = true;
    for (int64_t p = 0; p < planes; ++p) {
      const auto row_at = [&](int64_t h) {
        const int64_t line = ((at_.sample * out[0] + at_.begin[0] + d + p) * out[1] + at_.begin[1] + h) * out[2] + at_.begin[2];
        return data_of(c_.dy) + (line * c_.g.out_channels + c_.group * c_.out + first) * bytes;
      };
      for_strips(plane, row_at, c_.dy.dtype, 1 - lay_.phases, lay_.blocks, [&](int64_t k, AmxStripArgs& args) {
        args.low = c_.split ? a_low_ - a_ : 0;
        for (int64_t t = 0; t < to - from; ++t) {
          args.offset = t * amx_rows;
          args.columns = static_cast<int>(std::min(amx_rows, channels - args.offset));
          uint16_t* const tile = a_ + ((t * planes + p) * lay_.blocks + k) * amx_tile;
          args.even = lay_.phases > 1 ? tile + a_phase_ : tile;
          args.odd = lay_.phases > 1 ? tile : nullptr;
          finite &= c_.amx.turn_strip(args);
        }
      });
    }
    return finite;
  }

  // Lists where the values lie that the planes of dy from `d` on bring into use: memory gives them while these multiply.
  void plan_fetch(int64_t d) {
    ahead_.clear();
    if (!fetches_) return;
    const int64_t end = std::min(d + lay_.planes, at_.size[0]);
    for (int64_t p = d; p < end; ++p) {
      const Triple first = {at_.begin[0] + p, at_.begin[1], at_.begin[2]}, size = {1, at_.size[1], at_.size[2]};
      fetch_box(c_.dy, c_.g.out_channels, c_.g.out(), first, size);
    }
    for (int64_t p = packed_; p < end + c_.taps[0].halo; ++p) {
      const Triple first = {position(0, p, 0), position(1, 0, 0), position(2, 0, 0)};
      const Triple size = {c_.g.stride[0], lay_.rows * c_.g.stride[1], lay_.pitch * c_.g.stride[2]};
      fetch_box(c_.x, c_.first_channels(), c_.g.in, first, size);
      if (c_.second.channels > 0) fetch_box(c_.second.buffer, c_.second.channels, c_.g.in, first, size);
    }
  }

  // What lies inside of a box of positions.
  void fetch_box(const ConstBuffer& from, int64_t channels, const Triple& in, Triple first, const Triple& size) {
    Triple end;
    for (size_t i = 0; i < 3; ++i) {
      end[i] = std::clamp<int64_t>(first[i] + size[i], 0, in[i]);
      first[i] = std::clamp<int64_t>(first[i], 0, end[i]);
    }
    const int64_t bytes = channels * size_of(from.dtype);
    for (int64_t i = first[0]; i < end[0] && first[2] < end[2]; ++i)
      for (int64_t h = first[1]; h < end[1]; ++h)
        ahead_.add(data_of(from) + (((at_.sample * in[0] + i) * in[1] + h) * in[2] + first[2]) * bytes, (end[2] - first[2]) * bytes);
  }

  // Of one tap along D and the planes [d, end) of dy where it meets x: where the tiles of B of each plane, tap and tile of
  // channels start.
  void list_columns(int64_t d, int64_t end, size_t kd) {
    const auto& [td, th, tw] = c_.taps;
    const auto rd = static_cast<size_t>(td.residue[kd]);
    columns_.clear();
    for (; d < end; ++d)
      for (const Column& c : c_.plane_columns) {
        const int64_t offset = th.shift[c.kh] * lay_.pitch + tw.shift[c.kw];
        const auto rh = static_cast<size_t>(th.residue[c.kh]), rw = static_cast<size_t>(tw.residue[c.kw]);
        columns_.push_back(tiles_of(d + td.shift[kd], rd, rh, rw, c.channels) + offset / 2 * amx_depth);
      }
  }

  // Whether a tap along D reads x there.
  bool meets(size_t kd, int64_t plane) const {
    const int64_t source = position(0, plane + c_.taps[0].shift[kd], static_cast<size_t>(c_.taps[0].residue[kd]));
    return source >= 0 && source < c_.g.in[0];
  }

  // Planes [d, d + planes) of a block. Where they are all there are (`only`), sums need no memory beyond their way to dw.
  void multiply(int64_t d, int64_t planes, int64_t from, int64_t to, float* u, bool only, bool last_block) {
    const auto columns = static_cast<int64_t>(c_.plane_columns.size());
    AmxSumArgs args = {};
    args.a_step = planes * lay_.blocks * amx_tile;
    args.a_segment = lay_.blocks * amx_tile;
    args.b_low = b_low_;
    const int64_t pieces = lay_.whole() ? 1 : ceil_div(lay_.blocks, Layout::most_blocks(c_));
    int64_t calls = static_cast<int64_t>(c_.taps[0].shift.size()) * pieces *
                    ((to - from) / 2 * static_cast<int64_t>(groups_[1].size()) + (to - from) % 2 * static_cast<int64_t>(groups_[0].size()));
    for (size_t kd = 0; kd < c_.taps[0].shift.size(); ++kd) {
      int64_t first = d, end = d + planes;
      while (first < end && !meets(kd, first)) ++first;
      while (first < end && !meets(kd, end - 1)) --end;
      if (first == end) continue;
      list_columns(first, end, kd);
      args.segments = end - first;
      b_of_.resize(static_cast<size_t>(4 * args.segments));
      args.b = b_of_.data();
      bool last = last_block;
      for (int64_t later = d + planes; later < at_.size[0]; ++later) last &= !meets(kd, later);
      args.c_step = (only && last ? 2 : c_.columns()) * tile_floats;
      // Some rows and columns of tiles, a piece of K.
      const auto add = [&](int64_t t, int64_t rows, const Group& group, int64_t k, int64_t k_end) {
        const int64_t j = group.first;
        args.rows = static_cast<int>(rows);
        args.columns = group.columns;
        args.depth_blocks = k_end - k;
        const int64_t at = group.phase * a_phase_ + (((t - from) * planes + first - d) * lay_.blocks + k) * amx_tile;
        args.a = {a_ + at, c_.split ? a_low_ + at : nullptr};
        for (int64_t s = 0; s < args.segments; ++s)
          for (int i = 0; i < args.columns; ++i)
            b_of_[static_cast<size_t>(s * args.columns + i)] = columns_[static_cast<size_t>(s * columns + j + i)] + k * amx_tile;
        const int64_t column = static_cast<int64_t>(kd) * columns + j;
        args.c = only && last ? block_sums_ : u + (t * c_.columns() + column) * tile_floats;
        args.accumulate = sums_[kd] == Sums::begun || k > 0;
        ahead_.share(args, calls--);
        c_.amx.add_products(args);
        if (last && k_end == lay_.blocks) write(args, t, column);
      };
      if (lay_.whole()) {
        // A column's tiles of B stay in the first-level cache, and whole rows of dw are written.
        const int64_t paired = to - (to - from) % 2;
        for (const Group& group : groups_[1])
          for (int64_t t = from; t < paired; t += 2) add(t, 2, group, 0, lay_.blocks);
        for (const Group& group : groups_[0])
          if (paired < to) add(paired, 1, group, 0, lay_.blocks);
      } else {
        // Pieces of K inside of rows of tiles: the sums of one row stay in the second-level cache.
        for (int64_t t = from; t < to; t += 2) {
          const int64_t rows = std::min<int64_t>(2, to - t);
          for (int64_t piece = 0; piece < pieces; ++piece)
            for (const Group& group : groups_[static_cast<size_t>(rows - 1)])
              add(t, rows, group, lay_.blocks * piece / pieces, lay_.blocks * (piece + 1) / pieces);
        }
      }
      sums_[kd] = last ? Sums::written : Sums::begun;
    }
  }

  void write(const AmxSumArgs& args, int64_t out_tile, int64_t column) const {
    for (int i = 0; i < args.columns; ++i)
      for (int row = 0; row < args.rows; ++row)
        write_tile(c_, args.c + row * args.c_step + i * tile_floats, out_tile + row, column + i);
  }

  // Taps along D that no plane of the last block reads x with, or none at all.
  void finish(int64_t from, int64_t to, float* u, bool alone) const {
    const auto columns = static_cast<int64_t>(c_.plane_columns.size());
    for (size_t kd = 0; kd < sums_.size(); ++kd)
      for (int64_t t = from; t < to && sums_[kd] != Sums::written; ++t) {
        const int64_t column = static_cast<int64_t>(kd) * columns;
        float* const sums = u + (t * c_.columns() + column) * tile_floats;
        if (sums_[kd] == Sums::none) std::fill_n(sums, columns * tile_floats, 0.0F);
        for (int64_t i = 0; i < columns && alone; ++i) write_tile(c_, sums + i * tile_floats, t, column + i);
      }
  }

  const Call& c_;
  std::atomic<bool>& finite_;
  std::vector<std::byte> zeros_;  // of a position beyond the border
  BlockPlace at_ = {};
  Layout lay_;
  int64_t packed_ = 0;  // planes of x, so far
  uint16_t *a_ = nullptr, *a_low_ = nullptr, *b_ = nullptr;
  int64_t a_phase_ = 0, b_low_ = 0;
  std::array<std::vector<Group>, 2> groups_;  // of one row of tiles, of two
  std::vector<const uint16_t*> columns_, b_of_;
  std::vector<Sums> sums_;
  bool fetches_ = false;  // x is larger than the caches
  LinesAhead ahead_;
  alignas(64) float block_sums_[4 * tile_floats];
};

// The sum of the copies of u.
void write_gradient(const Call& c, const float* u, int64_t copies) {
  const int64_t columns = c.columns(), floats = c.out_tiles() * columns * tile_floats;
  parallel_for(columns, task_grain(columns, 16 * floats), [&](int64_t begin, int64_t end) {
    alignas(64) float sum[tile_floats];
    for (int64_t column = begin; column < end; ++column)
      for (int64_t t = 0; t < c.out_tiles(); ++t) {
        const float* from = u + (t * columns + column) * tile_floats;
        std::memcpy(sum, from, sizeof(sum));
        for (int64_t copy = 1; copy < copies; ++copy) c.kernels.add(from + copy * floats, tile_floats, sum);
        write_tile(c, sum, t, column);
      }
    if (c.past_caches) std::atomic_thread_fence(std::memory_order_seq_cst);
  });
}

// Whoever reads a small gradient soon finds it faster in the caches. Rows of tiles must be whole lines.
bool goes_past_caches(const ConvGeometry& g, const Buffer& dw) {
  constexpr int64_t line = 64;  // bytes
  const int64_t bytes = product(g.kernel) * (g.in_channels / g.groups) * g.out_channels * size_of(DType::f32);
  const bool lines = reinterpret_cast<uintptr_t>(dw.data) % line == 0 && (g.out_channels / g.groups) % amx_rows == 0;
  return lines && (dw.far || bytes >= far_bytes());
}

// One group and slice; false when a value is not finite.
bool add_group(const Call& call) {
  const int64_t blocks = block_count(call.g.batch, call.g.out(), call.block), tiles = call.out_tiles();
  const int64_t floats = tiles * call.columns() * tile_floats;
  const int64_t work = product(call.g.out()) * call.g.batch * product(call.g.kernel) * call.in * call.out;
  const int64_t threads =
      task_grain(2, static_cast<int64_t>(static_cast<double>(work) / call.amx.speed)) > 1 ? 1 : thread_count();
  const bool share_rows = call.share_rows && threads > 1;
  const int64_t parts = share_rows ? threads : std::min(threads, blocks), copies = share_rows ? 1 : parts;
  float* u = scratch(Purpose::partial, copies * floats);
  std::atomic<bool> finite = true;
  parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
    Worker worker(call, finite);
    for (int64_t part = begin; part < end; ++part) {
      // Pairs of tiles stay together.
      const int64_t pairs = ceil_div(tiles, 2);
      const int64_t from = share_rows ? 2 * (pairs * part / parts) : 0;
      const int64_t to = share_rows ? std::min(2 * (pairs * (part + 1) / parts), tiles) : tiles;
      const int64_t first = share_rows ? 0 : blocks * part / parts;
      const int64_t last = share_rows ? blocks : blocks * (part + 1) / parts;
      worker.run(first, last, from, to, u + (share_rows ? 0 : part * floats), copies == 1);
    }
    if (call.past_caches) std::atomic_thread_fence(std::memory_order_seq_cst);
  });
  if (finite && copies > 1) write_gradient(call, u, copies);
  return finite;
}

}  // namespace

bool suits_wgrad_amx(const ConvGeometry& g, bool split) {
  if (!multiplies_bf16(active_isa()) || product(g.out()) == 0) return false;
  const Call call = cheapest_call(g, split);
  // The f32 kernels, on minimal filtering and small blocks or not, do about this many multiply-adds in a cycle and take
  // this long to read a value, twice as large as those that plain bf16 would read.
  constexpr double multiply_adds = 24;
  const double read_cycles = split ? 0.8 : 1.6;
  const auto in = static_cast<double>(g.in_channels / g.groups), out = static_cast<double>(call.out);
  const double f32 = static_cast<double>(product(g.kernel)) * in * out / multiply_adds + read_cycles * (in + out);
  return cost_of_slices(call) * (has_amx(active_isa()) ? 1.0 : call.amx.speed) < f32;
}

bool wgrad_amx(const ConvGeometry& g, ConstBuffer x, const SecondInput& second, ConstBuffer dy, Buffer dw, bool split) {
  Call call = cheapest_call(g, split);
  call.x = x;
  call.second = second;
  call.dy = dy;
  call.dw = static_cast<float*>(dw.data);
  call.past_caches = goes_past_caches(g, dw);
  const int64_t slice = call.in;
  for (call.group = 0; call.group < g.groups; ++call.group) {
    call.turned = keeps_gradient(call) ? half_scratch(Purpose::turned, turned_halves(call)) : nullptr;
    for (call.first_in = 0; call.first_in < call.all_in(); call.first_in += slice) {
      call.in = std::min(slice, call.all_in() - call.first_in);
      call.plane_columns = columns_of(call.taps, call.in_tiles());
      if (!add_group(call)) return false;
    }
  }
  return true;
}

#else

bool suits_wgrad_amx(const ConvGeometry&, bool) { return false; }
bool wgrad_amx(const ConvGeometry&, ConstBuffer, const SecondInput&, ConstBuffer, Buffer, bool) { return false; }

#endif

}  // namespace voxlab::cpu
