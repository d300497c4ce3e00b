// Reading the files of one case into one volume and one label map.
#include <fmt/format.h>

#include <cmath>
#include <map>

#include "experiments/data/dataset.h"
#include "experiments/data/nifti.h"
#include "experiments/data/raster.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

bool is_nifti(const std::filesystem::path& file) {
  const std::string name = file.filename().string();
  return name.ends_with(".nii") || name.ends_with(".nii.gz");
}

Volume read_file(const std::filesystem::path& file, std::vector<std::string>& warnings) {
  if (is_raster(file)) return read_raster(file, RasterUse::image).volume;
  if (!is_nifti(file)) fail(file.string(), "only .nii, .nii.gz, .png and .jpg are read");
  NiftiImage image = read_nifti(file);
  for (const std::string& warning : image.warnings)
    warnings.push_back(file.string() + ": " + warning);
  return std::move(image.volume);
}

// JPEG blurs a mask's edge: from half of the foreground's value up it is foreground. Between more
// than two classes nothing of the kind can be told.
void to_two_values(Tensor& labels, const Dataset& dataset, const std::string& where) {
  if (dataset.class_count() != 2 || dataset.classes[1].value > 255)
    fail(where, fmt::format("a JPEG holds labels of two classes up to 255, these are {} up to {}: "
                            "its values are only near those written; use PNG",
                            dataset.class_count(), dataset.classes.back().value));
  const int64_t foreground = dataset.classes[1].value;
  auto* values = labels.data<uint8_t>();
  for (int64_t v = 0; v < labels.numel(); ++v)
    values[v] = static_cast<uint8_t>(2 * values[v] >= foreground ? foreground : 0);
}

// A label file as it is, but for JPEG.
Volume read_label_file(const Dataset& dataset, const std::filesystem::path& file,
                       std::vector<std::string>& warnings) {
  if (!is_raster(file)) return read_file(file, warnings);
  Raster raster = read_raster(file, RasterUse::labels);
  if (raster.lossy) to_two_values(raster.volume.voxels, dataset, file.string());
  return std::move(raster.volume);
}

std::string text(const Size3& size) {
  return fmt::format("({}, {}, {})", size[0], size[1], size[2]);
}

bool close(const Affine& a, const Affine& b) {
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 4; ++c)
      if (std::abs(a[r][c] - b[r][c]) > 1e-2) return false;
  return true;
}

void check_same_grid(const std::filesystem::path& file, const Volume& volume,
                     const std::filesystem::path& other_file, const Volume& other,
                     std::vector<std::string>& warnings) {
  if (volume.size() != other.size())
    fail(file.string(), fmt::format("size (z, y, x) is {}, but {} has {}", text(volume.size()),
                                    other_file.string(), text(other.size())));
  if (!close(volume.affine, other.affine))
    warnings.push_back(file.string() + ": lies elsewhere in space than " + other_file.string());
}

template <class T>
void to_classes(const Tensor& from, const std::map<int64_t, int32_t>& index_of, int32_t* to,
                const std::string& where) {
  const T* values = from.data<T>();
  // Runs of one value are long: remember the last.
  T last{};
  int32_t last_class = -1;
  for (int64_t v = 0; v < from.numel(); ++v) {
    if (last_class < 0 || values[v] != last) {
      const auto wide = static_cast<double>(values[v]);
      const bool whole = wide == std::floor(wide) && std::abs(wide) < 0x1p53;
      const auto found = whole ? index_of.find(static_cast<int64_t>(wide)) : index_of.end();
      if (found == index_of.end()) {
        const int64_t row = from.size(2), plane = row * from.size(1);
        fail(where, fmt::format("label {} at (z, y, x) = ({}, {}, {}) is not in dataset.json", wide,
                                v / plane, v / row % from.size(1), v % row));
      }
      last = values[v];
      last_class = found->second;
    }
    to[v] = last_class;
  }
}

Tensor read_labels(const Dataset& dataset, const std::filesystem::path& file, const Volume& image,
                   const std::filesystem::path& image_file, std::vector<std::string>& warnings) {
  const Volume label = read_label_file(dataset, file, warnings);
  check_same_grid(file, label, image_file, image, warnings);
  if (label.channels() != 1)
    fail(file.string(), fmt::format("expected one label a voxel, got {}", label.channels()));
  std::map<int64_t, int32_t> index_of;
  for (const LabelClass& each : dataset.classes)
    index_of.emplace(each.value, static_cast<int32_t>(index_of.size()));
  const Size3 size = image.size();
  Tensor classes = Tensor::empty({size[0], size[1], size[2]}, DType::i32);
  int32_t* to = classes.data<int32_t>();
  const Tensor& from = label.voxels;
  switch (from.dtype()) {
    case DType::u8:
      to_classes<uint8_t>(from, index_of, to, file.string());
      break;
    case DType::i32:
      to_classes<int32_t>(from, index_of, to, file.string());
      break;
    case DType::i64:
      to_classes<int64_t>(from, index_of, to, file.string());
      break;
    case DType::f32:
      to_classes<float>(from, index_of, to, file.string());
      break;
    case DType::f64:
      to_classes<double>(from, index_of, to, file.string());
      break;
    default:
      fail(file.string(), fmt::format("labels of type {}", name(from.dtype())));
  }
  return classes;
}

}  // namespace

Volume read_image(const std::vector<std::filesystem::path>& files, int64_t channels,
                  std::vector<std::string>& warnings) {
  if (files.empty()) fail("read_image", "no files");
  Volume whole;
  int64_t filled = 0;
  for (const auto& file : files) {
    Volume part = read_file(file, warnings);
    part.voxels = part.voxels.to(DType::f32);
    check_finite(part.voxels, file.string());
    const bool alone = files.size() == 1;
    const int64_t expected = alone ? channels : 1;
    if (expected != 0 && part.channels() != expected)
      fail(file.string(), fmt::format("expected {} channel(s), got {}", expected, part.channels()));
    if (alone) return part;
    const auto count = static_cast<int64_t>(files.size());
    if (filled == 0) {
      whole = part;
      whole.voxels =
          Tensor::empty({part.size()[0], part.size()[1], part.size()[2], count}, DType::f32);
    }
    check_same_grid(file, part, files.front(), whole, warnings);
    const float* from = part.voxels.data<float>();
    float* to = whole.voxels.data<float>() + filled++;
    for (int64_t v = 0; v < part.voxels.numel(); ++v) to[v * count] = from[v];
  }
  return whole;
}

RawCase read_case(const Dataset& dataset, const DatasetCase& which) {
  RawCase raw;
  raw.volume =
      read_image(which.images, static_cast<int64_t>(dataset.channels.size()), raw.warnings);
  if (!which.label.empty())
    raw.labels = read_labels(dataset, which.label, raw.volume, which.images.front(), raw.warnings);
  return raw;
}

}  // namespace voxlab
