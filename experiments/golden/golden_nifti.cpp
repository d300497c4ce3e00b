// Records of NIfTI files: what a reader must return (`expected`), and what it must refuse
// (`hostile`).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/data/nifti.h"
#include "experiments/golden/golden.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

using nlohmann::json;

constexpr double digits_12 = 1e-11;  // records hold 12 significant digits

// Largest difference relative to the largest expected value (1 if that is smaller).
double difference(const std::vector<double>& got, const std::vector<double>& expected) {
  if (got.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double worst = 0, scale = 1;
  for (size_t i = 0; i < got.size(); ++i) {
    scale = std::max(scale, std::abs(expected[i]));
    worst = std::max(worst, std::abs(got[i] - expected[i]));
    if (std::isnan(got[i]) != std::isnan(expected[i]))
      worst = std::numeric_limits<double>::infinity();
  }
  return worst / scale;
}

std::vector<double> flat(const Affine& affine) {
  std::vector<double> values;
  for (const auto& row : affine) values.insert(values.end(), row.begin(), row.end());
  return values;
}

std::vector<double> flat(const json& rows) {
  std::vector<double> values;
  for (const auto& row : rows)
    for (const auto& value : row) values.push_back(value.get<double>());
  return values;
}

// Voxels in the order of the record: first axis i slowest, channels fastest.
std::vector<double> first_axis_slowest(const Volume& volume) {
  const std::vector<double> voxels = volume.voxels.to_vector();
  const Size3 n = volume.size();
  const int64_t channels = volume.channels();
  std::vector<double> values;
  values.reserve(voxels.size());
  for (int64_t x = 0; x < n[2]; ++x)
    for (int64_t y = 0; y < n[1]; ++y)
      for (int64_t z = 0; z < n[0]; ++z)
        for (int64_t c = 0; c < channels; ++c)
          values.push_back(voxels[size_t(((z * n[1] + y) * n[2] + x) * channels + c)]);
  return values;
}

void check_header(GoldenReport& report, const std::string& name, const NiftiImage& image,
                  const json& want) {
  const NiftiHeader& h = image.header;
  std::vector<std::string> wrong;
  const auto check = [&](const char* key, bool same) {
    if (!same) wrong.push_back(key);
  };
  check("shape", h.shape == want.at("shape").get<std::vector<int64_t>>());
  check("dtype", voxlab::name(h.type) == want.at("dtype").get<std::string>());
  check("big_endian", h.big_endian == want.at("big_endian").get<bool>());
  check("qform_code", h.qform_code == want.at("qform_code").get<int>());
  check("sform_code", h.sform_code == want.at("sform_code").get<int>());
  check("orientation",
        orientation(image.volume.affine) == want.at("orientation").get<std::string>());
  check("affine_source",
        want.at("affine_source").get<std::string>().substr(0, image.affine_source.size()) ==
            image.affine_source);
  std::string note;
  for (const std::string& key : wrong) note += (note.empty() ? "differs: " : ", ") + key;
  report.add(name + " header", static_cast<double>(wrong.size()), 0, note);
}

void check_values(GoldenReport& report, const std::string& name, const NiftiImage& image,
                  const json& want) {
  const Volume& volume = image.volume;
  const std::vector<double> voxels = volume.voxels.to_vector();
  const int64_t channels = volume.channels();
  std::vector<double> first;
  for (size_t i = 0; i < want.at("first_values_first_axis_fastest").size(); ++i) {
    const auto v = static_cast<int64_t>(i);
    const int64_t grid = image.header.voxels();
    first.push_back(voxels[size_t(v % grid * channels + v / grid)]);
  }
  report.add(
      name + " first values",
      difference(first, want.at("first_values_first_axis_fastest").get<std::vector<double>>()),
      digits_12);
  double sum = 0, size = 0;
  for (double value : voxels) {
    sum += value;
    size += std::abs(value);
  }
  report.add(name + " sum", std::abs(sum - want.at("sum").get<double>()) / std::max(size, 1.0),
             digits_12);
}

void check_ras(GoldenReport& report, const std::string& name, const NiftiImage& image,
               const json& want) {
  const Volume ras = reorient_to_ras(image.volume);
  report.add(name + " values in RAS",
             difference(first_axis_slowest(ras),
                        want.at("values_last_axis_fastest").get<std::vector<double>>()),
             digits_12);
  report.add(name + " affine in RAS", difference(flat(ras.affine), flat(want.at("affine"))),
             digits_12);
}

void check_expected(GoldenReport& report, const std::filesystem::path& file, const json& want) {
  const std::string name = want.at("file").get<std::string>();
  NiftiImage image;
  try {
    image = read_nifti(file.parent_path() / name);
  } catch (const Error& error) {
    report.add(name, std::numeric_limits<double>::infinity(), 0, error.what());
    return;
  }
  check_header(report, name, image, want);
  const auto pixdim = want.at("spacing").get<std::vector<double>>();
  std::vector<double> spacing(image.volume.spacing.rbegin(), image.volume.spacing.rend());
  for (size_t axis = 3; axis < pixdim.size(); ++axis)
    spacing.push_back(image.header.pixdim[axis + 1]);
  spacing.resize(pixdim.size());
  report.add(name + " spacing", difference(spacing, pixdim), digits_12);
  report.add(name + " affine", difference(flat(image.volume.affine), flat(want.at("affine"))),
             digits_12);
  check_values(report, name, image, want);
  if (want.contains("ras")) check_ras(report, name, image, want.at("ras"));
}

// `required` is a sentence: "error that ..." must be refused, "readable; ..." must be read,
// anything else leaves the choice.
void check_hostile(GoldenReport& report, const std::filesystem::path& file, const json& want) {
  const std::string name = want.at("file").get<std::string>();
  const std::string required = want.at("required").get<std::string>();
  const bool must_fail = required.rfind("error that", 0) == 0;
  const bool must_read = required.find("error") == std::string::npos;
  const bool must_notice = required.find("must notice") != std::string::npos;
  bool failed = false, noticed = false;
  std::string note;
  try {
    const NiftiImage image = read_nifti(file.parent_path() / name);
    note = "read";
    for (const std::string& warning : image.warnings) note += "; warning: " + warning;
    check_finite(image.volume.voxels, name);
  } catch (const Error& error) {
    failed = note.empty();
    noticed = true;
    note = failed ? "refused: " + error.message() : note + "; then noticed: " + error.message();
  }
  const bool wrong = (must_fail && !failed) || (must_read && failed) || (must_notice && !noticed);
  report.add(name, wrong ? 1 : 0, 0, note);
}

}  // namespace

GoldenReport golden_nifti(const std::filesystem::path& file, const json& record,
                          const GoldenOptions&) {
  GoldenReport report{.file = file.string(), .kind = "nifti", .rows = {}};
  const bool hostile = record.value("case", "") == "hostile";
  for (const json& each : record.at("files")) {
    if (hostile) {
      check_hostile(report, file, each);
    } else {
      check_expected(report, file, each);
    }
  }
  return report;
}

}  // namespace voxlab
