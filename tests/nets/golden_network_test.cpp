// The authors' networks, number by number: every small record in f64 on the reference backend and in f32
// on the fast one, strict and with the products of the other precisions.
#include <gtest/gtest.h>

#include <optional>

#include "experiments/golden/golden_file.h"
#include "runtime/backend/cpu/isa.h"
#include "runtime/core/visit.h"

namespace voxlab {
namespace {

struct Case {
  std::filesystem::path file;
  GoldenOptions options;
  friend void PrintTo(const Case& c, std::ostream* out) { *out << c.file.filename().string(); }
};

// The highest level with AMX, emulated where need be; none on a machine without AVX-512.
std::optional<cpu::Isa> tiles() {
  const cpu::Isa highest = cpu::available_isas().back();
  return cpu::has_amx(highest) ? std::optional(highest) : std::nullopt;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* net : {"unetr_pp", "ux_net", "levit_unet", "brats_unet", "dae_former"})
    for (const auto& entry : std::filesystem::directory_iterator(std::string(VOXLAB_TEST_DATA "/goldens/") + net)) {
      const std::string stem = entry.path().stem();
      if (stem == "counts" || stem.starts_with("train_trajectory")) continue;
      all.push_back({entry.path(), {Device::ref, DType::f64}});
      all.push_back({entry.path(), {Device::cpu, DType::f32}});
      all.push_back({entry.path(), {Device::cpu, DType::f32, Arithmetic::bf16}});
      if (tiles()) all.push_back({entry.path(), {Device::cpu, DType::f32, Arithmetic::bf16x3}});
    }
  return all;
}

class GoldenNetwork : public testing::TestWithParam<Case> {};

TEST_P(GoldenNetwork, Agrees) {
  std::optional<cpu::IsaScope> scope;
  if (GetParam().options.precision == Arithmetic::bf16x3) scope.emplace(*tiles());
  const GoldenReport report = golden_file(GetParam().file, GetParam().options);
  EXPECT_FALSE(report.rows.empty());
  for (const GoldenRow& row : report.rows)
    EXPECT_TRUE(row.pass) << row.name << " error " << row.error << " limit " << row.limit << " " << row.note;
}

INSTANTIATE_TEST_SUITE_P(Records, GoldenNetwork, testing::ValuesIn(cases()), [](const auto& info) {
  const std::filesystem::path& file = info.param.file;  // two networks may have a block of one name
  return file.parent_path().filename().string() + "_" + file.stem().string() + "_" +
         std::string(to_string(info.param.options.device)) + "_" + std::string(name(info.param.options.dtype)) + "_" +
         std::string(to_string(info.param.options.precision));
});

}  // namespace
}  // namespace voxlab
