// Planes of a gather's input along D as bf16 (and its remainder), borders zero, as tiles of A read them. Planes are made
// a little ahead of those that are read, in small shares while tiles multiply.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/backend/cpu/dense/gather_conv.h"
#include "runtime/backend/cpu/dense/kernels_amx.h"

namespace voxlab::cpu {

// Planes of the input under one plane of the output, and with those that are made ahead of them.
int64_t planes_under(const GatherConv& conv);
int64_t planes_held(const GatherConv& conv);

// How a gather is cut.
struct AmxCut {
  std::array<int64_t, 3> block;  // of the output
  bool slabs;                    // of channels, as RunShape has them
  int64_t slices = 1;            // of the slabs: held one after the other
  // All planes of a block are held, and each tile of B serves them all; else one plane of the output is made at a time.
  bool whole = false;
  bool far_b = false;  // tiles of B do not stay in the second-level cache
};

class AmxPlanes {
 public:
  AmxPlanes(const AmxTable& amx, const GatherConv& conv, const AmxCut& cut, bool split);

  // Goes to a slice of a block's input; `ahead` is the one after it, or -1. Slices are numbered on from block to block.
  void enter(int64_t index, int64_t ahead);
  // Makes what is missing of the block's first `end` planes. False when a value is not finite.
  bool need(int64_t end);
  // Takes on planes after those, as far as there is room: planes before `first` are not read any more. `blocks`: calls of
  // share() before the next need().
  void plan_ahead(int64_t first, int64_t blocks);
  // Work for the next block of tiles.
  void share(AmxBlockArgs& args);

  // Of the block: its place in the output, its input's size and first position.
  const std::array<int64_t, 3>& begin() const { return reading_.begin; }
  const std::array<int64_t, 3>& size() const { return reading_.size; }
  const std::array<int64_t, 3>& extent() const { return reading_.extent; }
  int64_t sample() const { return reading_.sample; }

  AmxParts parts() const { return {high_, low_}; }
  int64_t slabs() const { return slabs_; }        // of a slice
  int64_t slab_step() const { return slab_; }     // halves from one to the next
  int64_t position() const { return position_; }  // halves from one to the next
  int64_t plane_at(int64_t plane) const { return place_of(reading_.first + plane); }  // in halves

 private:
  struct Source {
    int64_t index = -1, sample = 0;
    int64_t channel = 0;  // its slice's first
    std::array<int64_t, 3> begin = {}, size = {}, extent = {};
    std::array<int64_t, 3> origin = {};  // the input position under the block's first output and tap
    int64_t first = 0;                   // the number of its first plane among all planes made
    int64_t made = 0;                    // of its planes, also those in work
  };
  Source locate(int64_t index, int64_t first) const;
  int64_t place_of(int64_t number) const { return number % slots_ * slot_; }
  void make_plane();
  void add_row(int64_t row, int64_t count, int64_t to);
  void add_normalised(int64_t row, int64_t count, int64_t to);
  void repeat_norm();
  void add(ConstBuffer from, int64_t at, int64_t rows, int64_t n, int64_t in_pitch, int64_t out_pitch, int64_t to);
  void clear(int64_t to, int64_t n) const;
  void clear_positions(int64_t to, int64_t count) const;
  bool finish();
  void plan_prefetch();

  const AmxTable& amx_;
  const GatherConv& c_;
  AmxCut cut_;
  int64_t channels_;  // of a slice
  int64_t slabs_, slab_, position_;
  int64_t slots_;
  int64_t slot_ = 0;  // halves from one place to the next
  uint16_t* high_ = nullptr;
  uint16_t* low_ = nullptr;
  Source reading_, making_;
  int64_t ahead_ = -1;
  int64_t repeat_ = 0;  // positions of a row that is normalised: narrow ones go together
  std::vector<float> norm_;  // of each sample mean, scale and shift, repeated so
  int64_t norm_row_ = 0;     // floats of one of them, whole chunks
  std::vector<AmxSplitArgs> jobs_;
  AmxFill fill_ = {};
  int64_t fill_share_ = 0;  // of each block of tiles
  bool fetches_ = false;    // a kernel of 1 over a large tensor: what is converted asks for what comes later
  const char* next_ = nullptr;  // input of a later plane, brought to the second-level cache meanwhile
  int64_t next_share_ = 0;
};

}  // namespace voxlab::cpu
