// Writing NIfTI-1 single files: header, voxels, optional gzip.
#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "experiments/data/nifti.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"

namespace voxlab {
namespace {

static_assert(std::endian::native == std::endian::little,
              "headers are written in the host's order");

constexpr int64_t header_bytes = 352;  // 348 and four zero bytes: no extension follows

bool ends_with(const std::string& text, std::string_view end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// An AtomicFile behind zlib, or behind nothing.
class Sink {
 public:
  explicit Sink(const std::filesystem::path& path) : name_(path.string()), file_(path) {
    if (ends_with(name_, ".nii")) return;
    if (!ends_with(name_, ".nii.gz")) fail(name_, "expected a name that ends in .nii or .nii.gz");
    // 16 more window bits ask for a gzip frame; zlib leaves its time stamp 0, so bytes repeat.
    if (deflateInit2(&z_, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) !=
        Z_OK)
      fail(name_, "zlib cannot start");
    gzip_ = true;
  }
  ~Sink() {
    if (gzip_) deflateEnd(&z_);
  }
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;

  void write(std::span<const std::byte> bytes) {
    if (gzip_) {
      compress(bytes, Z_NO_FLUSH);
    } else {
      file_.write(bytes);
    }
  }
  void commit() {
    if (gzip_) compress({}, Z_FINISH);
    file_.commit();
  }

 private:
  void compress(std::span<const std::byte> bytes, int flush) {
    z_.next_in = reinterpret_cast<z_const Bytef*>(const_cast<std::byte*>(bytes.data()));
    z_.avail_in = static_cast<uInt>(bytes.size());
    do {
      z_.next_out = reinterpret_cast<Bytef*>(window_.data());
      z_.avail_out = static_cast<uInt>(window_.size());
      if (deflate(&z_, flush) == Z_STREAM_ERROR) fail(name_, "zlib failed");
      file_.write(std::span(window_.data(), window_.size() - z_.avail_out));
    } while (z_.avail_out == 0);
  }

  std::string name_;
  AtomicFile file_;
  bool gzip_ = false;
  z_stream z_{};
  std::array<std::byte, 1 << 16> window_;
};

template <class T>
void put(std::span<std::byte> bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
}

std::array<std::byte, header_bytes> encode(const NiftiHeader& h, const std::string& where) {
  std::array<std::byte, header_bytes> bytes{};
  put<int32_t>(bytes, 0, 348);
  put<int16_t>(bytes, 40, static_cast<int16_t>(h.shape.size()));
  for (size_t i = 1; i < 8; ++i) {
    const int64_t length = i <= h.shape.size() ? h.shape[i - 1] : 1;
    if (length > std::numeric_limits<int16_t>::max())
      fail(where, fmt::format("axis {} has {} voxels; NIfTI-1 holds at most 32767", i, length));
    put<int16_t>(bytes, 40 + 2 * i, static_cast<int16_t>(length));
  }
  put<int16_t>(bytes, 70, static_cast<int16_t>(h.type));
  put<int16_t>(bytes, 72, static_cast<int16_t>(8 * size_of(h.type)));
  for (size_t i = 0; i < 8; ++i) put<float>(bytes, 76 + 4 * i, static_cast<float>(h.pixdim[i]));
  put<float>(bytes, 108, static_cast<float>(header_bytes));
  put<float>(bytes, 112, 1.0f);  // scl_slope
  put<uint8_t>(bytes, 123, static_cast<uint8_t>(h.units));
  put<int16_t>(bytes, 252, static_cast<int16_t>(h.qform_code));
  put<int16_t>(bytes, 254, static_cast<int16_t>(h.sform_code));
  for (size_t i = 0; i < 3; ++i) {
    put<float>(bytes, 256 + 4 * i, static_cast<float>(h.quaternion[i]));
    put<float>(bytes, 268 + 4 * i, static_cast<float>(h.qoffset[i]));
    for (size_t c = 0; c < 4; ++c)
      put<float>(bytes, 280 + 16 * i + 4 * c, static_cast<float>(h.srow[i][c]));
  }
  std::memcpy(bytes.data() + 344, "n+1", 4);
  return bytes;
}

template <class Stored, class Value>
Stored to_file(Value value, const std::string& where) {
  if constexpr (std::is_floating_point_v<Stored>) {
    return static_cast<Stored>(value);
  } else {
    const auto wide = static_cast<long double>(value);  // holds every int64 and uint64
    if (!(wide >= static_cast<long double>(std::numeric_limits<Stored>::min()) &&
          wide <= static_cast<long double>(std::numeric_limits<Stored>::max())) ||
        wide != std::floor(wide))
      fail(where, fmt::format("value {} cannot be written as a {}-byte {} integer",
                              static_cast<double>(value), sizeof(Stored),
                              std::is_signed_v<Stored> ? "signed" : "unsigned"));
    return static_cast<Stored>(value);
  }
}

template <class Stored, class Value>
void write_voxels(Sink& sink, const Tensor& voxels, int64_t channels, const std::string& where) {
  const Value* values = voxels.data<Value>();
  const int64_t count = voxels.numel() / channels;
  constexpr int64_t piece = 1 << 14;
  std::vector<Stored> buffer(static_cast<size_t>(std::min(piece, count)));
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t v = 0; v < count; v += piece) {
      const int64_t n = std::min(piece, count - v);
      for (int64_t i = 0; i < n; ++i)
        buffer[static_cast<size_t>(i)] = to_file<Stored>(values[(v + i) * channels + c], where);
      sink.write(std::as_bytes(std::span(buffer.data(), static_cast<size_t>(n))));
    }
  }
}

template <class Stored>
void write_as(Sink& sink, const Tensor& voxels, int64_t channels, const std::string& where) {
  switch (voxels.dtype()) {
    case DType::f64:
      return write_voxels<Stored, double>(sink, voxels, channels, where);
    case DType::f32:
      return write_voxels<Stored, float>(sink, voxels, channels, where);
    case DType::i64:
      return write_voxels<Stored, int64_t>(sink, voxels, channels, where);
    case DType::i32:
      return write_voxels<Stored, int32_t>(sink, voxels, channels, where);
    case DType::u8:
      return write_voxels<Stored, uint8_t>(sink, voxels, channels, where);
    case DType::bf16:
    case DType::f16:
    case DType::boolean:
      break;
  }
  fail(where, fmt::format("voxels of type {} cannot be written", name(voxels.dtype())));
}

void write_data(Sink& sink, const Tensor& voxels, NiftiType type, int64_t channels,
                const std::string& where) {
  switch (type) {
    case NiftiType::uint8:
      return write_as<uint8_t>(sink, voxels, channels, where);
    case NiftiType::int8:
      return write_as<int8_t>(sink, voxels, channels, where);
    case NiftiType::int16:
      return write_as<int16_t>(sink, voxels, channels, where);
    case NiftiType::uint16:
      return write_as<uint16_t>(sink, voxels, channels, where);
    case NiftiType::int32:
      return write_as<int32_t>(sink, voxels, channels, where);
    case NiftiType::uint32:
      return write_as<uint32_t>(sink, voxels, channels, where);
    case NiftiType::int64:
      return write_as<int64_t>(sink, voxels, channels, where);
    case NiftiType::uint64:
      return write_as<uint64_t>(sink, voxels, channels, where);
    case NiftiType::float32:
      return write_as<float>(sink, voxels, channels, where);
    case NiftiType::float64:
      return write_as<double>(sink, voxels, channels, where);
  }
}

void write_file(const std::filesystem::path& file, const Tensor& voxels, NiftiHeader h,
                NiftiType type) {
  const std::string where = file.string();
  if (voxels.rank() != 3 && voxels.rank() != 4)
    fail(where, "expected voxels (z, y, x) or (z, y, x, C), got " + voxels.shape().to_string());
  const int64_t channels = voxels.rank() == 4 ? voxels.size(3) : 1;
  h.type = type;
  h.shape = {voxels.size(2), voxels.size(1), voxels.size(0)};
  if (channels > 1) h.shape.push_back(channels);
  Sink sink(file);
  sink.write(encode(h, where));
  write_data(sink, voxels.contiguous() ? voxels : voxels.clone(), type, channels, where);
  sink.commit();
}

}  // namespace

void write_nifti(const std::filesystem::path& file, const Volume& volume, NiftiType type) {
  NiftiHeader h;
  set_grid(h, volume.affine, volume.spacing);
  write_file(file, volume.voxels, h, type);
}

void write_nifti_like(const std::filesystem::path& file, const Tensor& voxels,
                      const NiftiHeader& grid, NiftiType type) {
  const Size3 size = grid.size();
  const bool fits = voxels.rank() >= 3 && voxels.size(0) == size[0] && voxels.size(1) == size[1] &&
                    voxels.size(2) == size[2];
  if (!fits)
    fail(file.string(),
         fmt::format("expected voxels of size ({}, {}, {}), as the image has, got {}", size[0],
                     size[1], size[2], voxels.shape().to_string()));
  write_file(file, voxels, grid, type);
}

}  // namespace voxlab
