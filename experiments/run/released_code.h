// What counting tools see of the authors' code besides its operations: how it writes them, which layers its
// module tree holds twice, what it computes and does not return. Figures of tools depend on that.
#pragma once

#include "nets/zoo.h"
#include "runtime/analyze/ledger.h"

namespace voxlab {

// Sets `written`, `module_names` and `returned` of the rows of one forward pass, whose outputs have these
// identities.
void mark_as_released(const NetConfig& config, bool training, std::span<const uint64_t> outputs,
                      std::vector<LedgerRow>& rows);

}  // namespace voxlab
