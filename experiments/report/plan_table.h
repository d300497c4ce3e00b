// What a suite costs, before anything is trained: parameters, operations and memory of every cell,
// from shapes, beside what is published.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <vector>

#include "experiments/report/suite_table.h"

namespace voxlab {

// "params", "macs" (by the suite's table.rule), "memory" (inference) and "train_memory" (a training
// step) of each cell, in order. Networks that several cells share, as seeds do, are counted once.
std::vector<Results> cell_costs(const Suite& suite, std::span<const SweepCell> cells);

// One row a cell. Columns of the suite that only a run can fill show what is published.
Table plan_table(const Suite& suite, std::span<const SweepCell> cells,
                 std::span<const Results> costs, const TableSources& sources);
// The same as an array of cells: id, label, state, config, figures, published (null: in no source).
nlohmann::json plan_json(const Suite& suite, std::span<const SweepCell> cells,
                         std::span<const Results> costs, const TableSources& sources);

}  // namespace voxlab
