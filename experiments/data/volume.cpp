// Orientation of index axes in space, and what depends on it.
#include "experiments/data/volume.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

using Matrix3 = std::array<std::array<double, 3>, 3>;

double determinant(const Matrix3& m) {
  return m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) -
         m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
         m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
}

Matrix3 inverse_transpose(const Matrix3& m) {
  const double det = determinant(m);
  Matrix3 r{};
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) {
      const size_t i1 = (i + 1) % 3, i2 = (i + 2) % 3, j1 = (j + 1) % 3, j2 = (j + 2) % 3;
      r[i][j] = (m[i1][j1] * m[i2][j2] - m[i1][j2] * m[i2][j1]) / det;
    }
  }
  return r;
}

// The rotation (or reflection) closest to the axes' directions: the orthogonal factor of the polar
// decomposition, by Newton's iteration X <- (X + X^-T) / 2. Takes out zooms and shear.
Matrix3 closest_rotation(const Affine& affine) {
  Matrix3 x{};
  for (size_t c = 0; c < 3; ++c) {
    const double zoom = std::hypot(affine[0][c], affine[1][c], affine[2][c]);
    for (size_t r = 0; r < 3; ++r) x[r][c] = affine[r][c] / zoom;
  }
  if (!(std::abs(determinant(x)) > 1e-12)) fail("orientation", "the affine matrix is singular");
  for (int step = 0; step < 100; ++step) {
    const Matrix3 y = inverse_transpose(x);
    double change = 0;
    for (size_t r = 0; r < 3; ++r) {
      for (size_t c = 0; c < 3; ++c) {
        change = std::max(change, std::abs(y[r][c] - x[r][c]));
        x[r][c] = 0.5 * (x[r][c] + y[r][c]);
      }
    }
    if (change < 1e-14) break;
  }
  return x;
}

template <class T>
void check_finite_as(const Tensor& voxels, const std::string& where) {
  const T* values = voxels.data<T>();
  const int64_t count = voxels.numel();
  const auto bad = std::find_if(values, values + count, [](T v) { return !std::isfinite(v); });
  if (bad == values + count) return;
  const auto how_many = std::count_if(bad, values + count, [](T v) { return !std::isfinite(v); });
  std::string at;
  int64_t rest = bad - values;
  for (int axis = voxels.rank() - 1; axis >= 0; --axis) {
    at = std::to_string(rest % voxels.size(axis)) + (at.empty() ? "" : ", ") + at;
    rest /= voxels.size(axis);
  }
  fail(where, fmt::format("{} voxel(s) are NaN or infinite, the first at (z, y, x, channel) = ({})",
                          how_many, at));
}

}  // namespace

double determinant3(const Affine& affine) {
  Matrix3 m{};
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 3; ++c) m[r][c] = affine[r][c];
  return determinant(m);
}

std::array<AxisDirection, 3> axis_directions(const Affine& affine) {
  Matrix3 rotation = closest_rotation(affine);
  // Axes that point most clearly along a world axis choose first (nibabel's io_orientation).
  std::array<double, 3> strength{};
  for (size_t c = 0; c < 3; ++c)
    for (size_t r = 0; r < 3; ++r)
      strength[c] = std::max(strength[c], rotation[r][c] * rotation[r][c]);
  std::array<size_t, 3> order{0, 1, 2};
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return strength[a] > strength[b]; });
  std::array<AxisDirection, 3> directions;
  std::array<bool, 3> taken{};
  for (size_t c : order) {
    size_t best = 3;
    for (size_t r = 0; r < 3; ++r) {
      if (taken[r]) continue;
      if (best == 3 || std::abs(rotation[r][c]) > std::abs(rotation[best][c])) best = r;
    }
    taken[best] = true;
    directions[c] = {.world = static_cast<int>(best), .sign = rotation[best][c] < 0 ? -1 : 1};
  }
  return directions;
}

std::string orientation(const Affine& affine) {
  std::string letters;
  for (const AxisDirection& d : axis_directions(affine))
    letters += (d.sign > 0 ? "RAS" : "LPI")[d.world];
  return letters;
}

Volume reorient_to_ras(const Volume& volume) {
  const auto directions = axis_directions(volume.affine);
  const Size3 size = volume.size();
  const std::array<int64_t, 3> file_size{size[2], size[1], size[0]};  // i, j, k
  std::array<size_t, 3> source{};                                     // world axis -> index axis
  for (size_t a = 0; a < 3; ++a) source[static_cast<size_t>(directions[a].world)] = a;

  Volume ras;
  ras.affine = volume.affine;
  Size3 new_size{};
  // Bytes to step in the old tensor for one step of the new z, y, x, and where voxel 0 lies.
  const int64_t voxel_bytes = volume.channels() * size_of(volume.voxels.dtype());
  const std::array<int64_t, 3> old_step{voxel_bytes, voxel_bytes * size[2],
                                        voxel_bytes * size[2] * size[1]};  // of i, j, k
  std::array<int64_t, 3> step{};
  int64_t start = 0;
  for (size_t w = 0; w < 3; ++w) {
    const size_t a = source[w];
    const bool flip = directions[a].sign < 0;
    new_size[2 - w] = file_size[a];
    ras.spacing[2 - w] = volume.spacing[2 - a];
    step[2 - w] = flip ? -old_step[a] : old_step[a];
    if (flip) start += old_step[a] * (file_size[a] - 1);
    for (size_t r = 0; r < 3; ++r) {
      ras.affine[r][w] = flip ? -volume.affine[r][a] : volume.affine[r][a];
      if (flip) ras.affine[r][3] += volume.affine[r][a] * static_cast<double>(file_size[a] - 1);
    }
  }
  const Tensor from = volume.voxels.contiguous() ? volume.voxels : volume.voxels.clone();
  ras.voxels =
      Tensor::empty({new_size[0], new_size[1], new_size[2], volume.channels()}, from.dtype());
  std::byte* to = ras.voxels.raw();
  for (int64_t z = 0; z < new_size[0]; ++z) {
    for (int64_t y = 0; y < new_size[1]; ++y) {
      const std::byte* row = from.raw() + start + z * step[0] + y * step[1];
      for (int64_t x = 0; x < new_size[2]; ++x, to += voxel_bytes)
        std::memcpy(to, row + x * step[2], static_cast<size_t>(voxel_bytes));
    }
  }
  return ras;
}

void check_finite(const Tensor& voxels, const std::string& where) {
  if (voxels.dtype() == DType::f32) check_finite_as<float>(voxels, where);
  if (voxels.dtype() == DType::f64) check_finite_as<double>(voxels, where);
}

}  // namespace voxlab
