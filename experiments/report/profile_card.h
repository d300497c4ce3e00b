// The cards of `voxlab profile`: what each layer of a network costs, and how near to the machine's limit it runs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "runtime/analyze/ledger.h"
#include "runtime/runtime.h"

namespace voxlab {

// A call cannot be faster than its multiply-adds at the measured peak of its arithmetic, nor than its bytes
// (inputs read once, outputs written once) at the measured speed of copies: the larger of the two is its bound.
// Winograd kernels make 4 of 9 multiply-adds, or 8 of 27 ("winograd3"), and only those are held against the peak.
struct Bound {
  double arithmetic = 0, memory = 0;  // seconds
  double seconds() const { return arithmetic > memory ? arithmetic : memory; }
};
Bound bound_of(const LedgerRow& row, const MachinePeaks& peaks);

// What calls cost together.
struct Work {
  double seconds = 0;
  double bound_seconds = 0;       // sum of the calls' bounds
  double arithmetic_seconds = 0;  // the part of it in calls that the arithmetic bounds
  int64_t calls = 0, macs = 0, bytes = 0;

  std::string_view bound() const;  // "arithmetic", "memory"; "-" where nothing is computed or moved
  double attained() const;         // bound over time
};

struct KernelWork {
  std::string op, kernel;
  bool backward = false;
  Work work;
};

// A layer's calls of both directions, the most expensive kernel first.
struct LayerCard {
  std::string layer;
  Work work;
  int64_t memory_after = 0;  // bytes of live tensors after its last forward call
  std::vector<KernelWork> kernels;
};

struct Profile {
  std::string title;  // what ran, where
  MachinePeaks peaks;
  int64_t runs = 0;              // profiled; the cards are those of the quietest
  double end_to_end = 0;         // seconds, measured without profiling, the least
  std::vector<LayerCard> cards;  // the most expensive first

  double attributed() const;    // seconds of all cards
  double unattributed() const;  // what is left of the end-to-end time
};

// Of one run; a layer is the first `depth` names of a row's scope, 0: the whole network.
std::vector<LayerCard> cards_of(std::span<const LedgerRow> rows, const MachinePeaks& peaks, int depth);

// At most `layers` cards, then the sum and the unattributed rest.
std::string to_text(const Profile& profile, int64_t layers);
nlohmann::json to_json(const Profile& profile);

}  // namespace voxlab
