#include "experiments/run/demo_data.h"

#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "experiments/data/nifti.h"
#include "runtime/core/error.h"
#include "runtime/core/rng.h"
#include "runtime/io/file.h"

namespace voxlab {
namespace {

namespace fs = std::filesystem;

const fs::path templates = "/usr/share/mricron/templates";

// AAL numbers structures in pairs, left odd and right even (aal.nii.txt).
const std::map<int64_t, uint8_t> class_of_pair = {
    {37, 1}, {41, 1},           // hippocampus, amygdala
    {71, 2}, {73, 2}, {75, 2},  // caudate, putamen, pallidum
    {77, 3},                    // thalamus
};

void write_json(const fs::path& file, const nlohmann::json& json) {
  AtomicFile out(file);
  out.write(json.dump(2) + "\n");
  out.commit();
}

nlohmann::json dataset_json(const char* name, const char* channel,
                            std::array<const char*, 3> classes, int64_t training,
                            const char* description) {
  return {{"name", name},
          {"description", description},
          {"channel_names", {{"0", channel}}},
          {"labels", {{"background", 0}, {classes[0], 1}, {classes[1], 2}, {classes[2], 3}}},
          {"numTraining", training},
          {"file_ending", ".nii.gz"}};
}

void write_case(const fs::path& folder, const std::string& id, bool test, const Volume& image,
                Volume label) {
  write_nifti(folder / (test ? "imagesTs" : "imagesTr") / (id + "_0000.nii.gz"), image,
              image.voxels.dtype() == DType::u8 ? NiftiType::uint8 : NiftiType::float32);
  write_nifti(folder / (test ? "labelsTs" : "labelsTr") / (id + ".nii.gz"), label,
              NiftiType::uint8);
}

// ---- Colin27 ----

// One half of the box around the deep structures: 64 mm from the midline outwards. x counts from
// the midline, so that both halves lie alike; the affine keeps each voxel where it was in the head.
Volume half_of(const Volume& whole, bool left) {
  constexpr Size3 begin{30, 70, 0}, size{80, 96, 64};  // z, y; x from the midline
  constexpr int64_t midline = 90;
  const auto* from = whole.voxels.data<uint8_t>();
  const Size3 grid = whole.size();
  Volume half{.voxels = Tensor::empty({size[0], size[1], size[2], 1}, DType::u8),
              .spacing = whole.spacing};
  auto* to = half.voxels.data<uint8_t>();
  for (int64_t z = 0; z < size[0]; ++z)
    for (int64_t y = 0; y < size[1]; ++y)
      for (int64_t x = 0; x < size[2]; ++x)
        *to++ =
            from[((begin[0] + z) * grid[1] + begin[1] + y) * grid[2] + midline + (left ? -x : x)];
  half.affine = whole.affine;
  const std::array<int64_t, 3> first{midline, begin[1], begin[0]};  // i, j, k
  for (size_t r = 0; r < 3; ++r) {
    for (size_t c = 0; c < 3; ++c)
      half.affine[r][3] += whole.affine[r][c] * static_cast<double>(first[c]);
    if (left) half.affine[r][0] = -half.affine[r][0];
  }
  return half;
}

Volume read_template(const char* name) {
  Volume volume = read_nifti(templates / name).volume;
  if (volume.size() != Size3{181, 217, 181} || volume.channels() != 1 ||
      volume.voxels.dtype() != DType::u8)
    fail((templates / name).string(),
         "expected 181 x 217 x 181 voxels of one byte, as mricron-data has them");
  return volume;
}

void make_colin27(const fs::path& folder) {
  const Volume image = read_template("ch2.nii.gz");
  Volume label = read_template("aal.nii.gz");
  auto* values = label.voxels.data<uint8_t>();
  for (int64_t v = 0; v < label.voxels.numel(); ++v) {
    const auto found = class_of_pair.find(values[v] % 2 == 1 ? values[v] : values[v] - 1);
    values[v] = found == class_of_pair.end() ? uint8_t{0} : found->second;
  }
  for (const bool left : {false, true})
    write_case(folder, left ? "colin27_left" : "colin27_right", left, half_of(image, left),
               half_of(label, left));
  write_json(
      folder / "dataset.json",
      dataset_json("Colin27", "T1w", {"hippocampus and amygdala", "basal ganglia", "thalamus"}, 1,
                   "Halves of one brain: Colin27 T1 and AAL regions, from Debian's mricron-data"));
}

// ---- phantoms ----

struct Ellipsoid {
  std::array<double, 3> centre, radius;
  bool holds(int64_t z, int64_t y, int64_t x) const {
    const double a = (static_cast<double>(z) - centre[0]) / radius[0];
    const double b = (static_cast<double>(y) - centre[1]) / radius[1];
    const double c = (static_cast<double>(x) - centre[2]) / radius[2];
    return a * a + b * b + c * c <= 1;
  }
};

// Three kinds that differ in size and brightness, two of each.
void make_phantom(const fs::path& folder, int64_t number, bool test) {
  constexpr Size3 size{64, 80, 64};
  constexpr std::array<double, 4> brightness{0, 0.8, 1.6, -0.8};
  constexpr std::array<double, 4> radius{0, 7, 11, 15};
  const Philox random(27, 0, static_cast<uint32_t>(number));
  std::array<std::vector<Ellipsoid>, 4> shapes;
  uint64_t next = 0;
  for (size_t kind = 1; kind < 4; ++kind)
    for (int copy = 0; copy < 2; ++copy) {
      Ellipsoid e;
      for (size_t a = 0; a < 3; ++a) {
        e.radius[a] = radius[kind] * (0.7 + 0.6 * random.uniform(next++));
        e.centre[a] =
            e.radius[a] + (static_cast<double>(size[a]) - 2 * e.radius[a]) * random.uniform(next++);
      }
      shapes[kind].push_back(e);
    }
  Volume image{.voxels = Tensor::empty({size[0], size[1], size[2], 1}, DType::f32)};
  Volume label{.voxels = Tensor::zeros({size[0], size[1], size[2], 1}, DType::u8)};
  auto* value = image.voxels.data<float>();
  auto* is = label.voxels.data<uint8_t>();
  constexpr uint64_t noise = 1 << 20;
  for (int64_t z = 0, v = 0; z < size[0]; ++z)
    for (int64_t y = 0; y < size[1]; ++y)
      for (int64_t x = 0; x < size[2]; ++x, ++v) {
        for (const size_t kind : {3, 2, 1})  // smaller ones lie over larger ones
          for (const Ellipsoid& e : shapes[kind])
            if (e.holds(z, y, x)) is[v] = static_cast<uint8_t>(kind);
        value[v] = static_cast<float>(brightness[is[v]] +
                                      0.5 * random.normal(noise + static_cast<uint64_t>(v)));
      }
  write_case(folder, "phantom_" + std::to_string(number), test, image, label);
}

void make_phantoms(const fs::path& folder) {
  for (int64_t i = 0; i < 10; ++i) make_phantom(folder, i, i >= 8);
  write_json(folder / "dataset.json",
             dataset_json("Phantoms", "intensity", {"small", "middle", "large"}, 8,
                          "Generated: noisy ellipsoids of three kinds; no scan of anything"));
}

}  // namespace

bool has_colin27() {
  std::error_code code;
  return fs::exists(templates / "ch2.nii.gz", code) && fs::exists(templates / "aal.nii.gz", code);
}

bool is_demo_source(std::string_view source) { return source == "colin27" || source == "phantom"; }

std::string_view describe_demo(std::string_view source) {
  return source == "colin27" ? "colin27: one labelled real brain (Debian's mricron-data); its "
                               "right half trains, its left half "
                               "tests, so a score says that the pieces work, not how well they "
                               "would do on other people"
                             : "phantom: GENERATED ellipsoids in noise, no real scan (install "
                               "mricron-data for a real brain); a "
                               "score says that the pieces work, nothing about anatomy";
}

fs::path make_demo_data(std::string_view source, const fs::path& root) {
  const fs::path folder = root / source;
  if (fs::exists(folder / "dataset.json")) return folder;  // written last
  if (source == "colin27" && !has_colin27())
    fail("data.source",
         "colin27 needs Debian's package mricron-data: apt-get install mricron-data");
  for (const char* each : {"imagesTr", "labelsTr", "imagesTs", "labelsTs"})
    fs::create_directories(folder / each);
  source == "colin27" ? make_colin27(folder) : make_phantoms(folder);
  return folder;
}

}  // namespace voxlab
