#include "runtime/backend/cpu/dense/planes_amx.h"

#include <algorithm>
#include <cstring>

#include "runtime/backend/cpu/dense/blocks.h"
#include "runtime/backend/cpu/dense/scratch.h"

namespace voxlab::cpu {

#if defined(__x86_64__)

namespace {

constexpr int64_t half_bytes = sizeof(uint16_t);
constexpr int64_t cache_line_halves = 32;
// What tiles read of K past a plane's last run, times zeros, must be finite.
constexpr int64_t tail = 2 * amx_depth;

}  // namespace

int64_t planes_under(const GatherConv& c) {
  const std::vector<int64_t>& taps = c.axis[0].taps;
  return taps.empty() ? 1 : taps.back() - taps.front() + 1;
}

int64_t planes_held(const GatherConv& c) { return planes_under(c) + c.axis[0].stride; }

AmxPlanes::AmxPlanes(const AmxTable& amx, const GatherConv& conv, const AmxCut& cut, bool split)
    : amx_(amx), c_(conv), cut_(cut), channels_(conv.channels / cut.slices) {
  const std::array<int64_t, 3> extent = input_extent(c_, cut_.block);
  slots_ = cut_.whole ? extent[0] : planes_held(conv);
  slabs_ = cut_.slabs ? channels_ / amx_depth : 1;
  position_ = channels_ / slabs_;
  slab_ = extent[1] * extent[2] * position_;
  slot_ = ceil_div(slabs_ * slab_ + tail, cache_line_halves) * cache_line_halves;
  // Rows of A that nobody wants lie beyond the last position; they may hold anything.
  const int64_t slack = most_amx_block_rows * c_.axis[2].stride * position_;
  const int64_t whole = ceil_div(slots_ * slot_ + slack, cache_line_halves) * cache_line_halves;
  high_ = half_scratch(Purpose::tile, whole * (split ? 2 : 1));
  low_ = split ? high_ + whole : nullptr;
  if (c_.norm != nullptr) repeat_norm();
  const int64_t in_bytes = c_.batch * c_.axis[0].in * c_.axis[1].in * c_.axis[2].in * c_.channels * size_of(c_.in.dtype);
  fetches_ = weight_rows(c_) == c_.channels && in_bytes >= far_bytes();
}

AmxPlanes::Source AmxPlanes::locate(int64_t index, int64_t first) const {
  const BlockPlace place = place_block(out_size(c_), cut_.block, index / cut_.slices);
  const int64_t channel = index % cut_.slices * channels_;
  Source s = {index, place.sample, channel, place.begin, place.size, input_extent(c_, place.size), {}, first, 0};
  for (size_t i = 0; i < 3; ++i) {
    const GatherAxis& a = c_.axis[i];
    s.origin[i] = s.begin[i] * a.stride + (a.taps.empty() ? 0 : a.taps.front());
  }
  return s;
}

void AmxPlanes::enter(int64_t index, int64_t ahead) {
  ahead_ = ahead;
  // Only some panels of the block may have been computed before; its first planes may be gone since.
  const bool here = index == reading_.index && making_.first + making_.made - reading_.first <= slots_;
  if (here) return;
  if (index != making_.index || making_.made > slots_) {
    jobs_.clear();
    fill_ = {};
    making_ = locate(index, 0);
  }
  reading_ = making_;
}

bool AmxPlanes::need(int64_t end) {
  bool finite = finish();
  if (making_.index != reading_.index) return finite;  // all of them are there
  end = std::min(end, reading_.extent[0]);
  while (making_.made < end) {
    make_plane();
    finite &= finish();
  }
  return finite;
}

void AmxPlanes::plan_ahead(int64_t first, int64_t blocks) {
  while (true) {
    if (making_.made == making_.extent[0]) {
      if (ahead_ < 0 || making_.index != reading_.index || ahead_ == reading_.index) break;
      making_ = locate(ahead_, reading_.first + reading_.extent[0]);
    }
    if (making_.first + making_.made - (reading_.first + first) >= slots_) break;
    make_plane();
  }
  int64_t chunks = 0;
  for (const AmxSplitArgs& job : jobs_) chunks += job.rows * ceil_div(job.n, amx_fill_values);
  fill_ = {.job = jobs_.data(), .end = jobs_.data() + jobs_.size(), .finite = true};
  fill_share_ = ceil_div(chunks, std::max<int64_t>(blocks, 1));
  plan_prefetch();
  next_share_ = ceil_div(next_share_, std::max<int64_t>(blocks, 1));
}

void AmxPlanes::share(AmxBlockArgs& args) {
  args.fill = fill_.job == fill_.end ? nullptr : &fill_;
  args.fill_chunks = fill_share_;
  args.next = next_;
  args.next_bytes = next_ == nullptr ? 0 : next_share_;
  if (next_ != nullptr) next_ += next_share_;
}

// The next plane after those in work, if its rows are whole and so lie in one piece.
void AmxPlanes::plan_prefetch() {
  next_ = nullptr;
  next_share_ = 0;
  if (cut_.slices > 1 || fetches_) return;
  const Source& s = making_;
  const int64_t d = s.origin[0] + s.made, h = std::max<int64_t>(0, s.origin[1]);
  const int64_t end = std::min(s.origin[1] + s.extent[1], c_.axis[1].in);
  if (s.made >= s.extent[0] || d < 0 || d >= c_.axis[0].in || h >= end || s.size[2] != c_.axis[2].out) return;
  const int64_t bytes = size_of(c_.in.dtype), row = c_.axis[2].in * c_.in_pitch * bytes;
  next_ = static_cast<const char*>(c_.in.data) + c_.in_offset * bytes + ((s.sample * c_.axis[0].in + d) * c_.axis[1].in + h) * row;
  next_share_ = (end - h) * row;
}

// Lists the jobs of one more plane.
void AmxPlanes::make_plane() {
  const Source& s = making_;
  const int64_t plane = making_.made++;
  const std::array<int64_t, 3> in = {c_.axis[0].in, c_.axis[1].in, c_.axis[2].in};
  const int64_t d = s.origin[0] + plane;
  if (d < 0 || d >= in[0]) return;  // in no run
  const int64_t from = std::clamp<int64_t>(-s.origin[2], 0, s.extent[2]);
  const int64_t end = std::clamp<int64_t>(in[2] - s.origin[2], from, s.extent[2]);
  int64_t to = place_of(s.first + plane);
  for (int64_t h = s.origin[1]; h < s.origin[1] + s.extent[1]; ++h, to += s.extent[2] * position_) {
    if (h < 0 || h >= in[1]) {
      clear_positions(to, s.extent[2]);
      continue;
    }
    const int64_t row = ((s.sample * in[0] + d) * in[1] + h) * in[2] + s.origin[2];
    clear_positions(to, from);
    add_row(row + from, end - from, to + from * position_);
    clear_positions(to + end * position_, s.extent[2] - end);
  }
  if (slabs_ == 1) clear(to, tail);
}

// `count` positions from input position `row` on.
void AmxPlanes::add_row(int64_t row, int64_t count, int64_t to) {
  if (c_.norm != nullptr) return add_normalised(row, count, to);
  if (c_.in_pitch == channels_ && slabs_ == 1)
    return add(c_.in, c_.in_offset + row * c_.in_pitch, 1, count * channels_, 0, 0, to);
  // The slice's channels of the first input, and of the second.
  const int64_t begin = making_.channel, second = c_.second.channels, first = c_.channels - second;
  const int64_t from_first = std::clamp<int64_t>(first - begin, 0, channels_), rest = channels_ - from_first;
  add(c_.in, c_.in_offset + row * c_.in_pitch + begin, count, from_first, c_.in_pitch, position_, to);
  // They may begin within a slab.
  const int64_t at = row * second + begin + from_first - first, within = slabs_ == 1 ? from_first : from_first % amx_depth;
  const int64_t head = slabs_ == 1 ? rest : std::min(rest, (amx_depth - within) % amx_depth);
  const int64_t slab = to + (slabs_ == 1 ? 0 : from_first / amx_depth * slab_);
  add(c_.second.buffer, at, count, head, second, position_, slab + within);
  add(c_.second.buffer, at + head, count, rest - head, second, position_, slab + (within == 0 ? 0 : slab_));
}

void AmxPlanes::repeat_norm() {
  const int64_t channels = c_.channels;
  repeat_ = std::max<int64_t>(1, 64 / channels);
  norm_row_ = ceil_div(repeat_ * channels, amx_fill_values) * amx_fill_values;
  norm_.assign(static_cast<size_t>(c_.batch * 3 * norm_row_), 0);
  float* to = norm_.data();
  for (int64_t sample = 0; sample < c_.batch; ++sample)
    for (const float* values : {c_.norm->mean, c_.norm->scale, c_.norm->shift}) {
      for (int64_t i = 0; i < repeat_ * channels; ++i) to[i] = values[sample * channels + i % channels];
      to += norm_row_;
    }
}

// The input is compact.
void AmxPlanes::add_normalised(int64_t row, int64_t count, int64_t to) {
  const int64_t at = c_.in_offset + row * c_.in_pitch + making_.channel;
  const size_t before = jobs_.size();
  if (cut_.slabs) {
    add(c_.in, at, count, channels_, c_.in_pitch, position_, to);
  } else {
    const int64_t width = repeat_ * channels_, rows = count / repeat_, rest = count % repeat_ * channels_;
    add(c_.in, at, rows, width, width, width, to);
    add(c_.in, at + rows * width, 1, rest, 0, 0, to + rows * width);
  }
  for (size_t i = before; i < jobs_.size(); ++i) {
    AmxSplitArgs& job = jobs_[i];
    job.mean = norm_.data() + 3 * norm_row_ * making_.sample + making_.channel;
    job.scale = job.mean + norm_row_;
    job.shift = job.scale + norm_row_;
    job.activation = static_cast<int>(c_.norm->activation);
    job.slope = c_.norm->slope;
  }
}

// Rows of n values, from element `at` of the buffer.
void AmxPlanes::add(ConstBuffer from, int64_t at, int64_t rows, int64_t n, int64_t in_pitch, int64_t out_pitch, int64_t to) {
  if (rows * n == 0) return;
  const bool f32 = from.dtype == DType::f32;
  jobs_.push_back({f32 ? static_cast<const float*>(from.data) + at : nullptr,
                   f32 ? nullptr : static_cast<const uint16_t*>(from.data) + at, rows, n, in_pitch, out_pitch,
                   slabs_ == 1 ? amx_fill_values : slab_, high_ + to,
                   low_ == nullptr ? nullptr : low_ + to, fetches_, nullptr, nullptr, nullptr, 0, 0});
}

void AmxPlanes::clear(int64_t to, int64_t n) const {
  std::memset(high_ + to, 0, static_cast<size_t>(n * half_bytes));
  if (low_ != nullptr) std::memset(low_ + to, 0, static_cast<size_t>(n * half_bytes));
}

void AmxPlanes::clear_positions(int64_t to, int64_t count) const {
  for (int64_t slab = 0; slab < slabs_ && count > 0; ++slab) clear(to + slab * slab_, count * position_);
}

// Does what is left of all jobs.
bool AmxPlanes::finish() {
  if (fill_.job == nullptr) fill_ = {.job = jobs_.data(), .end = jobs_.data() + jobs_.size(), .finite = true};
  if (fill_.job != fill_.end) amx_.fill(fill_);
  const bool finite = fill_.finite;
  jobs_.clear();
  fill_ = {.job = nullptr, .end = nullptr, .finite = true};
  return finite;
}

#endif

}  // namespace voxlab::cpu
