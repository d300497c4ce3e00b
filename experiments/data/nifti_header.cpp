// NIfTI header fields (nifti1.h and nifti2.h of the standard) and the checks on them.
#include "experiments/data/nifti_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <span>

#include "experiments/data/byte_source.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

constexpr int64_t size_1 = 348, size_2 = 540;  // sizeof_hdr of the two versions
constexpr std::string_view magic_2("n+2\0\r\n\032\n", 8);

// A field at a byte offset, in the file's byte order.
struct Fields {
  std::span<const std::byte> bytes;
  bool swap = false;

  template <class T>
  T get(size_t offset) const {
    std::array<std::byte, sizeof(T)> raw;
    std::memcpy(raw.data(), bytes.data() + offset, sizeof(T));
    if (swap) std::reverse(raw.begin(), raw.end());
    return std::bit_cast<T>(raw);
  }
  // `count` numbers of stored type T, as doubles.
  template <class T, size_t count>
  std::array<double, count> get_many(size_t offset) const {
    std::array<double, count> values;
    for (size_t i = 0; i < count; ++i)
      values[i] = static_cast<double>(get<T>(offset + i * sizeof(T)));
    return values;
  }
};

void check_shape(NiftiHeader& h, std::span<const int64_t, 8> dim, const std::string& where) {
  if (dim[0] < 1 || dim[0] > 7)
    fail(where, fmt::format("dim[0] is {}: expected 1 to 7 axes", dim[0]));
  int64_t elements = 1;
  for (size_t axis = 1; axis <= static_cast<size_t>(dim[0]); ++axis) {
    if (dim[axis] < 1)
      fail(where, fmt::format("dim[{}] is {}: expected at least 1", axis, dim[axis]));
    // 2^40 elements of 8 bytes stay far from the limits of int64 in all that follows.
    if (dim[axis] > (int64_t{1} << 40) / elements)
      fail(where, "the header announces more than 2^40 voxels");
    elements *= dim[axis];
    h.shape.push_back(dim[axis]);
  }
}

NiftiType parse_type(int code, const std::string& where) {
  switch (code) {
    case 2:
    case 4:
    case 8:
    case 16:
    case 64:
    case 256:
    case 512:
    case 768:
    case 1024:
    case 1280:
      return static_cast<NiftiType>(code);
    case 1:
      fail(where, "datatype 1 (binary) is not supported");
    case 32:
    case 1792:
    case 2048:
      fail(where, fmt::format("datatype {} (complex) is not supported", code));
    case 128:
    case 2304:
      fail(where, fmt::format("datatype {} (colour) is not supported", code));
    case 1536:
      fail(where, "datatype 1536 (128-bit float) is not supported");
    default:
      fail(where, fmt::format("datatype {} is not one of the standard's", code));
  }
}

void parse_1(NiftiHeader& h, const Fields& f, const std::string& where) {
  std::array<int64_t, 8> dim;
  for (size_t i = 0; i < 8; ++i) dim[i] = f.get<int16_t>(40 + 2 * i);
  check_shape(h, dim, where);
  h.type = parse_type(f.get<int16_t>(70), where);
  h.pixdim = f.get_many<float, 8>(76);
  const double offset = f.get<float>(108);
  if (!(offset >= 352 && offset < 0x1p53) || offset != std::floor(offset))
    fail(where, fmt::format("vox_offset is {}: expected a whole number of at least 352", offset));
  h.data_offset = static_cast<int64_t>(offset);
  h.slope = f.get<float>(112);
  h.intercept = f.get<float>(116);
  h.units = f.get<uint8_t>(123);
  h.qform_code = f.get<int16_t>(252);
  h.sform_code = f.get<int16_t>(254);
  h.quaternion = f.get_many<float, 3>(256);
  h.qoffset = f.get_many<float, 3>(268);
  for (size_t r = 0; r < 3; ++r) h.srow[r] = f.get_many<float, 4>(280 + 16 * r);
}

void parse_2(NiftiHeader& h, const Fields& f, const std::string& where) {
  std::array<int64_t, 8> dim;
  for (size_t i = 0; i < 8; ++i) dim[i] = f.get<int64_t>(16 + 8 * i);
  check_shape(h, dim, where);
  h.type = parse_type(f.get<int16_t>(12), where);
  h.pixdim = f.get_many<double, 8>(104);
  h.data_offset = f.get<int64_t>(168);
  if (h.data_offset < 544)
    fail(where, fmt::format("vox_offset is {}: expected at least 544", h.data_offset));
  h.slope = f.get<double>(176);
  h.intercept = f.get<double>(184);
  h.qform_code = f.get<int32_t>(344);
  h.sform_code = f.get<int32_t>(348);
  h.quaternion = f.get_many<double, 3>(352);
  h.qoffset = f.get_many<double, 3>(376);
  for (size_t r = 0; r < 3; ++r) h.srow[r] = f.get_many<double, 4>(400 + 32 * r);
  h.units = f.get<int32_t>(500);
}

void check_magic(std::string_view magic, int version, const std::string& where) {
  const bool pair = version == 1 ? magic.substr(0, 3) == "ni1" : magic.substr(0, 3) == "ni2";
  if (pair) fail(where, "this is the header of a .hdr/.img pair; only single-file NIfTI is read");
  const bool good = version == 1 ? magic == std::string_view("n+1\0", 4) : magic == magic_2;
  if (!good)
    fail(where, "not a NIfTI file: the magic bytes are missing (Analyze 7.5, or another format)");
}

bool all_finite(std::span<const double> values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

bool invertible(const Affine& affine) {
  double scale = 1;
  for (size_t c = 0; c < 3; ++c) scale *= std::hypot(affine[0][c], affine[1][c], affine[2][c]);
  return scale > 0 && std::isfinite(scale) && std::abs(determinant3(affine)) > 1e-6 * scale;
}

std::optional<Affine> sform(const NiftiHeader& h) {
  Affine affine = identity_affine();
  for (size_t r = 0; r < 3; ++r) {
    if (!all_finite(h.srow[r])) return std::nullopt;
    affine[r] = h.srow[r];
  }
  if (!invertible(affine)) return std::nullopt;
  return affine;
}

// Method 2 of nifti1.h: a unit quaternion of which b, c, d are stored, zooms, and qfac for
// handedness.
std::optional<Affine> qform(const NiftiHeader& h) {
  if (!all_finite(h.quaternion) || !all_finite(h.qoffset)) return std::nullopt;
  for (size_t i = 1; i <= 3; ++i)
    if (!std::isfinite(h.pixdim[i]) || h.pixdim[i] == 0) return std::nullopt;
  const auto [b, c, d] = h.quaternion;
  double a2 = 1 - (b * b + c * c + d * d);
  // Three float roundings may carry a half turn just past 1; more than that is no rotation
  // (nibabel).
  if (a2 < -3 * std::numeric_limits<float>::epsilon()) return std::nullopt;
  if (a2 < 3 * std::numeric_limits<float>::epsilon()) a2 = 0;
  const double a = std::sqrt(a2);
  const double s = 2 / (a2 + b * b + c * c + d * d);
  const double zoom[3] = {std::abs(h.pixdim[1]), std::abs(h.pixdim[2]),
                          h.pixdim[0] < 0 ? -std::abs(h.pixdim[3]) : std::abs(h.pixdim[3])};
  const double rotation[3][3] = {
      {1 - s * (c * c + d * d), s * (b * c - d * a), s * (b * d + c * a)},
      {s * (b * c + d * a), 1 - s * (b * b + d * d), s * (c * d - b * a)},
      {s * (b * d - c * a), s * (c * d + b * a), 1 - s * (b * b + c * c)}};
  Affine affine = identity_affine();
  for (size_t r = 0; r < 3; ++r) {
    for (size_t col = 0; col < 3; ++col) affine[r][col] = rotation[r][col] * zoom[col];
    affine[r][3] = h.qoffset[r];
  }
  return affine;
}

// Sets spacing from pixdim; axes that the file does not have count 1 where pixdim says nothing.
void take_spacing(const NiftiHeader& h, bool form_is_sound, NiftiGrid& grid,
                  const std::string& where) {
  for (size_t axis = 0; axis < 3; ++axis) {
    double value = h.pixdim[axis + 1];
    const double from_form =
        std::hypot(grid.affine[0][axis], grid.affine[1][axis], grid.affine[2][axis]);
    if (!std::isfinite(value) || value == 0) {
      const bool absent = axis >= h.shape.size();
      if (!form_is_sound && !absent)
        fail(where, fmt::format("pixdim[{}] is {} and no sform says the spacing", axis + 1, value));
      value = form_is_sound ? from_form : 1.0;
      grid.warnings.push_back(
          fmt::format("pixdim[{}] is not a spacing; {} is taken instead", axis + 1, value));
    } else if (value < 0) {
      value = -value;
      grid.warnings.push_back(fmt::format("pixdim[{}] is negative; its size is taken", axis + 1));
    }
    if (form_is_sound && std::abs(value - from_form) > 1e-3 * from_form)
      grid.warnings.push_back(fmt::format(
          "pixdim[{}] says {} mm, the affine {} mm; pixdim is taken", axis + 1, value, from_form));
    grid.spacing[2 - axis] = value;
  }
}

}  // namespace

std::string_view name(NiftiType type) {
  switch (type) {
    case NiftiType::uint8:
      return "uint8";
    case NiftiType::int16:
      return "int16";
    case NiftiType::int32:
      return "int32";
    case NiftiType::float32:
      return "float32";
    case NiftiType::float64:
      return "float64";
    case NiftiType::int8:
      return "int8";
    case NiftiType::uint16:
      return "uint16";
    case NiftiType::uint32:
      return "uint32";
    case NiftiType::int64:
      return "int64";
    case NiftiType::uint64:
      return "uint64";
  }
  return "?";
}

int64_t size_of(NiftiType type) {
  switch (type) {
    case NiftiType::uint8:
    case NiftiType::int8:
      return 1;
    case NiftiType::int16:
    case NiftiType::uint16:
      return 2;
    case NiftiType::int32:
    case NiftiType::uint32:
    case NiftiType::float32:
      return 4;
    case NiftiType::int64:
    case NiftiType::uint64:
    case NiftiType::float64:
      return 8;
  }
  return 0;
}

int64_t NiftiHeader::channels() const {
  int64_t product = 1;
  for (size_t axis = 3; axis < shape.size(); ++axis) product *= shape[axis];
  return product;
}

bool NiftiHeader::scaled() const {
  return slope != 0 && !std::isnan(slope) && (slope != 1 || intercept != 0);
}

NiftiHeader read_header(ByteSource& source) {
  const std::string& where = source.name();
  std::array<std::byte, size_2> bytes{};
  source.read(bytes.data(), size_1, "the header");
  NiftiHeader h;
  Fields fields{.bytes = bytes};
  int32_t header_size = fields.get<int32_t>(0);
  if (header_size != size_1 && header_size != size_2) {
    fields.swap = true;
    const int32_t swapped = fields.get<int32_t>(0);
    if (swapped != size_1 && swapped != size_2)
      fail(where,
           fmt::format("not a NIfTI file: sizeof_hdr is {}, expected 348 or 540", header_size));
    header_size = swapped;
  }
  h.big_endian = fields.swap != (std::endian::native == std::endian::big);
  h.version = header_size == size_1 ? 1 : 2;
  if (h.version == 2) source.read(bytes.data() + size_1, size_2 - size_1, "the header");
  const char* text = reinterpret_cast<const char*>(bytes.data());
  check_magic(h.version == 1 ? std::string_view(text + 344, 4) : std::string_view(text + 4, 8),
              h.version, where);
  if (h.version == 1) {
    parse_1(h, fields, where);
  } else {
    parse_2(h, fields, where);
  }
  if (std::isinf(h.slope)) fail(where, "scl_slope is infinite");
  if (h.scaled() && !std::isfinite(h.intercept))
    fail(where, fmt::format("scl_slope is {} but scl_inter is {}", h.slope, h.intercept));
  return h;
}

NiftiGrid grid_of(const NiftiHeader& h, const std::string& where) {
  NiftiGrid grid;
  const std::optional<Affine> s = h.sform_code > 0 ? sform(h) : std::nullopt;
  if (h.sform_code > 0 && !s) grid.warnings.push_back("the sform is not finite or not invertible");
  const std::optional<Affine> q = h.qform_code > 0 ? qform(h) : std::nullopt;
  if (h.qform_code > 0 && !q && !s)
    grid.warnings.push_back("the qform has a bad quaternion, offset or spacing");
  if (!s && !q && !grid.warnings.empty()) fail(where, "no sound affine: " + grid.warnings.front());
  if (s || q) grid.affine = s ? *s : *q;
  take_spacing(h, s.has_value(), grid, where);
  grid.affine_source = s ? "sform" : q ? "qform" : "none";
  if (!s && !q) {
    for (size_t axis = 0; axis < 3; ++axis) {
      const double zoom = (axis == 0 ? -1 : 1) * grid.spacing[2 - axis];
      grid.affine[axis][axis] = zoom;
      grid.affine[axis][3] = -zoom * 0.5 * static_cast<double>(h.length(axis) - 1);
    }
  }
  const int length_unit = h.units & 7;
  if (length_unit == 1 || length_unit == 3)
    grid.warnings.push_back(
        fmt::format("the header's unit is the {}; numbers are taken as millimetres",
                    length_unit == 1 ? "metre" : "micrometre"));
  return grid;
}

void set_grid(NiftiHeader& h, const Affine& affine, const Spacing3& spacing) {
  h.pixdim = {1, spacing[2], spacing[1], spacing[0], 1, 1, 1, 1};
  h.sform_code = 1;
  for (size_t r = 0; r < 3; ++r) h.srow[r] = affine[r];
  h.qform_code = 0;

  // A quaternion exists when the columns, divided by the spacing, are orthonormal.
  const double handed = determinant3(affine) < 0 ? -1 : 1;
  double m[3][3];
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 3; ++c) m[r][c] = affine[r][c] / spacing[2 - c] * (c == 2 ? handed : 1);
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) {
      const double dot = m[0][i] * m[0][j] + m[1][i] * m[1][j] + m[2][i] * m[2][j];
      if (!(std::abs(dot - (i == j ? 1 : 0)) < 1e-5)) return;
    }
  }
  h.qform_code = 1;
  h.pixdim[0] = handed;
  for (size_t r = 0; r < 3; ++r) h.qoffset[r] = affine[r][3];
  // The largest component comes from the diagonal, the others from it (nifti1_io's
  // mat44_to_quatern).
  const double b2 = 1 + m[0][0] - m[1][1] - m[2][2], c2 = 1 + m[1][1] - m[0][0] - m[2][2];
  const double d2 = 1 + m[2][2] - m[0][0] - m[1][1], a2 = 1 + m[0][0] + m[1][1] + m[2][2];
  double a, b, c, d;
  if (a2 > 1) {
    a = 0.5 * std::sqrt(a2);
    b = 0.25 * (m[2][1] - m[1][2]) / a;
    c = 0.25 * (m[0][2] - m[2][0]) / a;
    d = 0.25 * (m[1][0] - m[0][1]) / a;
  } else if (b2 > 1) {
    b = 0.5 * std::sqrt(b2);
    c = 0.25 * (m[0][1] + m[1][0]) / b;
    d = 0.25 * (m[0][2] + m[2][0]) / b;
    a = 0.25 * (m[2][1] - m[1][2]) / b;
  } else if (c2 > 1) {
    c = 0.5 * std::sqrt(c2);
    b = 0.25 * (m[0][1] + m[1][0]) / c;
    d = 0.25 * (m[1][2] + m[2][1]) / c;
    a = 0.25 * (m[0][2] - m[2][0]) / c;
  } else {
    d = 0.5 * std::sqrt(std::max(d2, 0.0));
    b = 0.25 * (m[0][2] + m[2][0]) / d;
    c = 0.25 * (m[1][2] + m[2][1]) / d;
    a = 0.25 * (m[1][0] - m[0][1]) / d;
  }
  const double sign = a < 0 ? -1 : 1;
  h.quaternion = {sign * b, sign * c, sign * d};
}

}  // namespace voxlab
