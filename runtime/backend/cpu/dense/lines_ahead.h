// Memory that is asked for while tiles multiply: pieces are listed, then given out in shares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "runtime/backend/cpu/dense/kernels_amx.h"
#include "runtime/backend/cpu/dense/passes.h"
#include "runtime/backend/cpu/dense/scratch.h"

namespace voxlab::cpu {

class LinesAhead {
 public:
  void clear() {
    pieces_.clear();
    left_ = 0;
  }

  void add(const std::byte* at, int64_t bytes) {
    left_ += bytes;
    if (!pieces_.empty() && pieces_.back().at + pieces_.back().bytes == at) {
      pieces_.back().bytes += bytes;
    } else {
      pieces_.push_back({at, bytes});
    }
  }

  // A share, where so many `calls` are still to come.
  void share(AmxSumArgs& args, int64_t calls) {
    args.next_bytes = 0;
    if (pieces_.empty()) return;
    constexpr int64_t line = 64;
    Piece& piece = pieces_.back();
    args.next = reinterpret_cast<const char*>(piece.at);
    args.next_bytes = std::min(piece.bytes, ceil_div(left_, std::max<int64_t>(1, calls) * line) * line);
    piece.at += args.next_bytes;
    piece.bytes -= args.next_bytes;
    left_ -= args.next_bytes;
    if (piece.bytes == 0) pieces_.pop_back();
  }

 private:
  struct Piece {
    const std::byte* at;
    int64_t bytes;
  };
  std::vector<Piece> pieces_;
  int64_t left_ = 0;  // bytes
};

}  // namespace voxlab::cpu
