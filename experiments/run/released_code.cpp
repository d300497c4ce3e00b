#include "experiments/run/released_code.h"

#include <algorithm>
#include <array>
#include <string>
#include <unordered_set>

namespace voxlab {
namespace {

// How calls of `op` in scopes that contain `scope` are written; a later entry overrules an earlier one. With
// `result_of` the released code scales the result of the product that follows, where ours scales an operand.
struct Writing {
  std::string_view net, op, scope;
  Written written = Written::layer;
  std::string_view result_of = "";
  std::string_view as = "";  // the op that it is there
};
constexpr std::array writings{
    Writing{"unetr_pp", "binary.mul", ".epa.spatial", Written::expression, "matmul"},
    // A LayerNorm class of its own: F.layer_norm in the blocks, step by step where channels come first.
    Writing{"ux_net", "layer_norm", "", Written::expression},
    Writing{"ux_net", "layer_norm", ".block", Written::function},
    Writing{"levit_unet", "resize", "", Written::layer},
    Writing{"levit_unet", "unary.affine", ".attention", Written::expression, "matmul"},
    Writing{"brats_unet", "unary.affine", ".axial", Written::expression, "matmul"},
    Writing{"dae_former", "softmax", "", Written::function},
    Writing{.net = "unetr", .op = "conv", .scope = "patch", .as = "linear"},
};

// The call of `op` that reads the result of rows[at], directly or as a view; nullptr without one.
const LedgerRow* reader_of(const std::vector<LedgerRow>& rows, size_t at, std::string_view op) {
  std::unordered_set<uint64_t> values(rows[at].outputs.begin(), rows[at].outputs.end());
  for (size_t i = at + 1; i < rows.size(); ++i) {
    const bool reads = std::any_of(rows[i].inputs.begin(), rows[i].inputs.end(),
                                   [&](uint64_t id) { return values.contains(id); });
    if (reads && rows[i].op == op) return &rows[i];
    if (reads && rows[i].is_view()) values.insert(rows[i].outputs.begin(), rows[i].outputs.end());
  }
  return nullptr;
}

void apply(const Writing& writing, std::vector<LedgerRow>& rows) {
  for (size_t i = 0; i < rows.size(); ++i) {
    LedgerRow& row = rows[i];
    if (!row.is(writing.op) || row.scope.find(writing.scope) == std::string::npos) continue;
    row.written = writing.written;
    if (!writing.as.empty()) row.op = writing.as;
    if (writing.result_of.empty()) continue;
    if (const LedgerRow* product = reader_of(rows, i, writing.result_of))
      row.in_elements = row.out_elements = product->out_elements;
  }
}

// A group norm with as many groups as channels is an instance norm by its arithmetic, but not by its class.
template <class Config>
void name_group_norms(const Config& config, std::vector<LedgerRow>& rows) {
  if constexpr (requires { config.norm == nn::NormKind::group; })
    for (LedgerRow& row : rows)
      if (row.is("group_norm") && config.norm == nn::NormKind::group) row.variant = "group";
}

}  // namespace

void mark_as_released(const NetConfig& config, bool training, std::span<const uint64_t> outputs,
                      std::vector<LedgerRow>& rows) {
  for (const Writing& writing : writings)
    if (writing.net == config.net) apply(writing, rows);
  if (config.net == "levit_unet" && config.levit_unet.repeated_blocks)
    for (LedgerRow& row : rows)
      if (row.scope.starts_with("transformer.")) row.module_names = 2;
  NetConfig::with_config(config, [&](std::string_view, const auto& c) { name_group_norms(c, rows); });
  // nnU-Net computes every head in evaluation too and returns the finest one.
  const bool finest_only = config.net == "brats_unet" && !training;
  mark_returned(rows, finest_only ? outputs.first(1) : outputs);
}

}  // namespace voxlab
