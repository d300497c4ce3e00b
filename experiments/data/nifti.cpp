// Reading NIfTI: header, then voxels in bounded pieces.
#include "experiments/data/nifti.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "experiments/data/byte_source.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

// What may follow the data in a gzip stream before we stop looking for its checksum.
constexpr int64_t trailing_limit = int64_t{64} << 20;

template <class T>
T from_file(const std::byte* bytes, bool swap) {
  std::array<std::byte, sizeof(T)> raw;
  std::memcpy(raw.data(), bytes, sizeof(T));
  if (swap) std::reverse(raw.begin(), raw.end());
  return std::bit_cast<T>(raw);
}

// Stored: x, y, z, channel, the first fastest. Wanted: channels last.
template <class Stored, class Value, class Convert>
void read_voxels(ByteSource& source, const NiftiHeader& h, Tensor& to, Convert convert) {
  Value* const out = to.data<Value>();
  const int64_t voxels = h.voxels(), channels = h.channels();
  const bool swap = h.big_endian != (std::endian::native == std::endian::big);
  constexpr int64_t piece = 1 << 16;
  std::vector<std::byte> bytes(static_cast<size_t>(std::min(piece, voxels)) * sizeof(Stored));
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t v = 0; v < voxels; v += piece) {
      const int64_t count = std::min(piece, voxels - v);
      source.read(bytes.data(), count * int64_t(sizeof(Stored)), "the voxel data");
      for (int64_t i = 0; i < count; ++i) {
        const auto stored = from_file<Stored>(bytes.data() + i * int64_t(sizeof(Stored)), swap);
        out[(v + i) * channels + c] = convert(stored);
      }
    }
  }
}

template <class Stored, class Value>
Tensor read_as(ByteSource& source, const NiftiHeader& h) {
  const Size3 size = h.size();
  const Shape shape{size[0], size[1], size[2], h.channels()};
  if (h.scaled()) {
    Tensor to = Tensor::empty(shape, DType::f64);
    read_voxels<Stored, double>(source, h, to,
                                [slope = h.slope, intercept = h.intercept](Stored v) {
                                  return static_cast<double>(v) * slope + intercept;
                                });
    return to;
  }
  Tensor to = Tensor::empty(shape, dtype_of<Value>);
  read_voxels<Stored, Value>(source, h, to, [](Stored v) { return static_cast<Value>(v); });
  return to;
}

Tensor read_data(ByteSource& source, const NiftiHeader& h) {
  switch (h.type) {
    case NiftiType::uint8:
      return read_as<uint8_t, uint8_t>(source, h);
    case NiftiType::int8:
      return read_as<int8_t, int32_t>(source, h);
    case NiftiType::int16:
      return read_as<int16_t, int32_t>(source, h);
    case NiftiType::uint16:
      return read_as<uint16_t, int32_t>(source, h);
    case NiftiType::int32:
      return read_as<int32_t, int32_t>(source, h);
    case NiftiType::uint32:
      return read_as<uint32_t, int64_t>(source, h);
    case NiftiType::int64:
      return read_as<int64_t, int64_t>(source, h);
    case NiftiType::uint64:
      return read_as<uint64_t, double>(source, h);
    case NiftiType::float32:
      return read_as<float, float>(source, h);
    case NiftiType::float64:
      return read_as<double, double>(source, h);
  }
  fail(source.name(), "unknown data type");
}

NiftiImage read_from(ByteSource& source) {
  NiftiImage image;
  NiftiHeader& h = image.header;
  h = read_header(source);
  NiftiGrid grid = grid_of(h, source.name());
  image.affine_source = grid.affine_source;
  image.warnings = std::move(grid.warnings);

  const int64_t header_bytes = h.version == 1 ? 348 : 540;
  const int64_t gap = h.data_offset - header_bytes;  // extensions: skipped as a whole, never parsed
  const int64_t data_bytes = h.voxels() * h.channels() * size_of(h.type);
  const int64_t can_follow = source.most_left();
  if (gap > can_follow || data_bytes > can_follow - gap)
    fail(source.name(),
         fmt::format("the header announces {} bytes of voxels at byte {}; the file can "
                     "hold only {} more",
                     data_bytes, h.data_offset, can_follow));
  source.skip(gap, "the gap before the voxel data");
  image.volume.voxels = read_data(source, h);
  source.finish(trailing_limit);
  image.volume.spacing = grid.spacing;
  image.volume.affine = grid.affine;
  return image;
}

}  // namespace

NiftiImage read_nifti(const std::filesystem::path& file) {
  ByteSource source(file);
  return read_from(source);
}

NiftiImage read_nifti(std::span<const std::byte> bytes, const std::string& name) {
  ByteSource source(bytes, name);
  return read_from(source);
}

NiftiHeader read_nifti_header(const std::filesystem::path& file) {
  ByteSource source(file);
  return read_header(source);
}

}  // namespace voxlab
