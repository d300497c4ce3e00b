// `voxlab golden`: reference records made from the authors' networks and the field's tools, checked
// one file at a time. Each kind of record has one function; `golden_file` finds the kind.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "runtime/core/arithmetic.h"
#include "runtime/core/device.h"
#include "runtime/core/dtype.h"

namespace voxlab {

struct GoldenRow {
  std::string name;    // the tensor or figure
  double error = 0;    // relative to the record's norm unless `note` says absolute
  double limit = 0;
  bool pass = false;
  std::string note;
};

struct GoldenReport {
  std::string file;
  std::string kind;
  std::vector<GoldenRow> rows;
  std::vector<std::string> unchecked;  // what the record holds and we do not compare, with the reason
  bool pass() const;  // false when there are no rows
  // error <= limit, NaN failing.
  void add(std::string name, double error, double limit, std::string note = "");
};

struct GoldenOptions {
  Device device = Device::cpu;
  DType dtype = DType::f32;
  Arithmetic precision = Arithmetic::strict;  // of f32 products on cpu
};

// What a limit of strict f32 becomes under coarser products; strict keeps it. A figure is allowed the larger of
// a floor and `factor` times its strict limit, which already says how the network amplifies rounding.
struct GoldenBound {
  double floor = 0, gradient_floor = 0, factor = 1;
  bool of_largest = false;  // gradients are measured against the network's largest, not each against itself
  double of(double strict_limit) const;
  double of_gradient(double strict_limit) const;
};
GoldenBound golden_bound(Arithmetic precision);
// In words, for tables.
std::string describe_limits(const GoldenOptions& options);

// Whole networks and blocks: outputs, loss, gradients of every parameter, running statistics.
GoldenReport golden_network(const std::filesystem::path& file, const nlohmann::json& record,
                            const GoldenOptions& options);
// Whole training steps: losses, gradient norms, parameters after.
GoldenReport golden_trajectory(const std::filesystem::path& file, const nlohmann::json& record,
                               const GoldenOptions& options);
// Parameters and counting tools' figures of paper-size networks.
GoldenReport golden_counts(const std::filesystem::path& file, const nlohmann::json& record,
                           const GoldenOptions& options);
GoldenReport golden_checkpoints(const std::filesystem::path& file, const nlohmann::json& record,
                                const GoldenOptions& options);
GoldenReport golden_nifti(const std::filesystem::path& file, const nlohmann::json& record,
                          const GoldenOptions& options);
GoldenReport golden_preprocess(const std::filesystem::path& file, const nlohmann::json& record,
                               const GoldenOptions& options);
GoldenReport golden_metrics(const std::filesystem::path& file, const nlohmann::json& record,
                            const GoldenOptions& options);
GoldenReport golden_inference(const std::filesystem::path& file, const nlohmann::json& record,
                              const GoldenOptions& options);

GoldenReport golden_losses(const std::filesystem::path& file, const nlohmann::json& record,
                           const GoldenOptions& options);
GoldenReport golden_optim(const std::filesystem::path& file, const nlohmann::json& record,
                          const GoldenOptions& options);

// The deterministic fill rule of the records: value = float32(offset + (2u - 1) * scale), or
// offset + u * scale when `half`, u from splitmix64 seeded by fnv1a64(name).
std::vector<float> golden_fill(std::string_view name, int64_t count, double scale, double offset,
                               bool half = false);
double golden_uniform(uint64_t name_hash, int64_t i);  // u in [0, 1)
uint64_t fnv1a64(std::string_view name);

}  // namespace voxlab
