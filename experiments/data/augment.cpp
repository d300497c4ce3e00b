#include "experiments/data/augment.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

Matrix3 multiply(const Matrix3& a, const Matrix3& b) {
  Matrix3 out{};
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 3; ++c)
      for (size_t k = 0; k < 3; ++k) out[r][c] += a[r][k] * b[k][c];
  return out;
}

Matrix3 rotation(size_t axis, double radians) {
  Matrix3 m{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  const size_t a = (axis + 1) % 3, b = (axis + 2) % 3;
  m[a][a] = m[b][b] = std::cos(radians);
  m[b][a] = std::sin(radians);
  m[a][b] = -m[b][a];
  return m;
}

struct Source {
  const float* image;
  const uint8_t* label;
  Size3 size;
  int64_t channels;
  int64_t voxel(int64_t z, int64_t y, int64_t x) const { return (z * size[1] + y) * size[2] + x; }
  bool inside(int64_t z, int64_t y, int64_t x) const {
    return z >= 0 && z < size[0] && y >= 0 && y < size[1] && x >= 0 && x < size[2];
  }
};

// Flips only: whole voxels are copied.
void copy_patch(const Source& from, const Size3& begin, const Size3& size, const Matrix3& matrix,
                float* image, int32_t* label) {
  const auto at = [&](size_t axis, int64_t o) {
    return begin[axis] + (matrix[axis][axis] < 0 ? size[axis] - 1 - o : o);
  };
  for (int64_t z = 0; z < size[0]; ++z)
    for (int64_t y = 0; y < size[1]; ++y)
      for (int64_t x = 0; x < size[2]; ++x, image += from.channels, ++label) {
        const int64_t sz = at(0, z), sy = at(1, y), sx = at(2, x);
        const bool inside = from.inside(sz, sy, sx);
        const int64_t v = inside ? from.voxel(sz, sy, sx) : 0;
        *label = inside && from.label ? from.label[v] : 0;
        for (int64_t c = 0; c < from.channels; ++c)
          image[c] = inside ? from.image[v * from.channels + c] : 0;
      }
}

// Linear interpolation where corners outside the volume count as 0.
void interpolate(const Source& from, const std::array<double, 3>& p, float* out) {
  std::array<int64_t, 3> low;
  std::array<float, 3> part;
  for (size_t a = 0; a < 3; ++a) {
    const double floor = std::floor(p[a]);
    low[a] = static_cast<int64_t>(floor);
    part[a] = static_cast<float>(p[a] - floor);
  }
  for (int64_t c = 0; c < from.channels; ++c) out[c] = 0;
  for (int corner = 0; corner < 8; ++corner) {
    const int dz = corner >> 2, dy = corner >> 1 & 1, dx = corner & 1;
    const float w =
        (dz ? part[0] : 1 - part[0]) * (dy ? part[1] : 1 - part[1]) * (dx ? part[2] : 1 - part[2]);
    if (w == 0 || !from.inside(low[0] + dz, low[1] + dy, low[2] + dx)) continue;
    const float* voxel =
        from.image + from.voxel(low[0] + dz, low[1] + dy, low[2] + dx) * from.channels;
    for (int64_t c = 0; c < from.channels; ++c) out[c] += w * voxel[c];
  }
}

void resample_patch(const Source& from, const Size3& begin, const Size3& size, const Matrix3& m,
                    float* image, int32_t* label) {
  std::array<double, 3> centre, start;
  for (size_t a = 0; a < 3; ++a) centre[a] = static_cast<double>(size[a] - 1) / 2;
  for (size_t a = 0; a < 3; ++a)
    start[a] = static_cast<double>(begin[a]) + centre[a] - m[a][0] * centre[0] -
               m[a][1] * centre[1] - m[a][2] * centre[2];
  for (int64_t z = 0; z < size[0]; ++z)
    for (int64_t y = 0; y < size[1]; ++y)
      for (int64_t x = 0; x < size[2]; ++x, image += from.channels, ++label) {
        std::array<double, 3> p;
        for (size_t a = 0; a < 3; ++a)
          p[a] = start[a] + m[a][0] * static_cast<double>(z) + m[a][1] * static_cast<double>(y) +
                 m[a][2] * static_cast<double>(x);
        interpolate(from, p, image);
        const int64_t nz = std::lround(p[0]), ny = std::lround(p[1]), nx = std::lround(p[2]);
        *label = from.label && from.inside(nz, ny, nx) ? from.label[from.voxel(nz, ny, nx)] : 0;
      }
}

struct Moments {
  double mean = 0, deviation = 0;
  float low = 0, high = 0;
};

Moments moments_of(std::span<const float> patch, int64_t channel, int64_t channels) {
  const auto at = static_cast<size_t>(channel), step = static_cast<size_t>(channels);
  Moments m{.low = patch[at], .high = patch[at]};
  double sum = 0, squares = 0;
  for (size_t i = at; i < patch.size(); i += step) {
    sum += patch[i];
    m.low = std::min(m.low, patch[i]);
    m.high = std::max(m.high, patch[i]);
  }
  const double n = static_cast<double>(patch.size() / step);
  m.mean = sum / n;
  for (size_t i = at; i < patch.size(); i += step)
    squares += (patch[i] - m.mean) * (patch[i] - m.mean);
  m.deviation = std::sqrt(squares / n);
  return m;
}

void apply_contrast(std::span<float> patch, int64_t channel, int64_t channels, double factor) {
  const Moments m = moments_of(patch, channel, channels);
  const auto f = static_cast<float>(factor), mean = static_cast<float>(m.mean);
  for (auto i = static_cast<size_t>(channel); i < patch.size(); i += static_cast<size_t>(channels))
    patch[i] = std::clamp((patch[i] - mean) * f + mean, m.low, m.high);
}

void expect_range(std::string_view key, const std::array<double, 2>& range) {
  if (!(range[0] > 0 && range[0] <= range[1]))
    fail("augment", std::string(key) + " must be two positive numbers, the lower first, got [" +
                        std::to_string(range[0]) + ", " + std::to_string(range[1]) + "]");
}

}  // namespace

AugmentConfig AugmentConfig::none() {
  AugmentConfig c;
  c.mirror_axes.clear();
  c.rotate_probability = c.scale_probability = c.noise_probability = c.brightness_probability = 0;
  c.contrast_probability = c.gamma_probability = c.gamma_inverted_probability = 0;
  return c;
}

void validate(const AugmentConfig& c) {
  for (int64_t axis : c.mirror_axes)
    if (axis < 0 || axis > 2)
      fail("augment", "mirror_axes are 0, 1, 2, got " + std::to_string(axis));
  for (double p :
       {c.rotate_probability, c.scale_probability, c.noise_probability, c.brightness_probability,
        c.contrast_probability, c.gamma_probability, c.gamma_inverted_probability})
    if (!(p >= 0 && p <= 1))
      fail("augment", "a probability must lie in [0, 1], got " + std::to_string(p));
  if (!(c.noise_variance >= 0))
    fail("augment", "noise_variance must not be negative, got " + std::to_string(c.noise_variance));
  expect_range("scale", c.scale);
  expect_range("brightness", c.brightness);
  expect_range("contrast", c.contrast);
  expect_range("gamma", c.gamma);
}

void Draws::add_normal(std::span<float> values, double deviation) const {
  constexpr uint64_t first = uint64_t{1} << 40;
  for (size_t i = 0; i < values.size(); i += 4) {
    const auto bits = philox_.block(first + i / 4);
    float normal[4];  // Box-Muller: two numbers from each pair
    for (size_t pair = 0; pair < 2; ++pair) {
      const float u = (static_cast<float>(bits[2 * pair] >> 8) + 1) * 0x1p-24F;  // (0, 1]
      const float radius = std::sqrt(-2 * std::log(u));
      const float turn =
          2 * std::numbers::pi_v<float> * static_cast<float>(bits[2 * pair + 1] >> 8) * 0x1p-24F;
      normal[2 * pair] = radius * std::cos(turn);
      normal[2 * pair + 1] = radius * std::sin(turn);
    }
    const size_t count = std::min<size_t>(4, values.size() - i);
    for (size_t k = 0; k < count; ++k) values[i + k] += static_cast<float>(deviation) * normal[k];
  }
}

PatchMap draw_map(const AugmentConfig& config, const Spacing3& spacing, Draws& draws,
                  bool in_plane) {
  PatchMap map;
  if (draws.chance(config.rotate_probability)) {
    map.resampled = true;
    Matrix3 turn = map.matrix;
    for (size_t axis = 0; axis < (in_plane ? 1 : 3); ++axis) {
      const double degrees = draws.uniform({-config.rotate_degrees, config.rotate_degrees});
      turn = multiply(turn, rotation(axis, degrees * std::numbers::pi / 180));
    }
    for (size_t r = 0; r < 3; ++r)
      for (size_t c = 0; c < 3; ++c) map.matrix[r][c] = turn[r][c] * spacing[c] / spacing[r];
  }
  if (draws.chance(config.scale_probability)) {
    map.resampled = true;
    const double factor = draws.uniform(config.scale);
    for (auto& row : map.matrix)
      for (double& value : row) value *= factor;
  }
  for (int64_t axis : config.mirror_axes)
    if (!(in_plane && axis == 0) && draws.chance(0.5))
      for (auto& row : map.matrix) row[static_cast<size_t>(axis)] *= -1;
  return map;
}

void read_patch(const Tensor& image, const Tensor& label, const Size3& begin, const Size3& size,
                const PatchMap& map, std::span<float> image_out, std::span<int32_t> label_out) {
  const Source from{.image = image.data<float>(),
                    .label = label ? label.data<uint8_t>() : nullptr,
                    .size = {image.size(0), image.size(1), image.size(2)},
                    .channels = image.size(3)};
  const auto voxels = static_cast<size_t>(size[0] * size[1] * size[2]);
  VOXLAB_CHECK(label_out.size() == voxels &&
               image_out.size() == voxels * static_cast<size_t>(from.channels));
  if (map.resampled) {
    resample_patch(from, begin, size, map.matrix, image_out.data(), label_out.data());
  } else {
    copy_patch(from, begin, size, map.matrix, image_out.data(), label_out.data());
  }
}

void apply_gamma(std::span<float> patch, int64_t channel, int64_t channels, double gamma,
                 bool inverted) {
  const Moments before = moments_of(patch, channel, channels);
  const auto at = static_cast<size_t>(channel), step = static_cast<size_t>(channels);
  const float range = before.high - before.low;
  if (!(range > 1e-6F)) return;
  const auto power = static_cast<float>(gamma);
  for (size_t i = at; i < patch.size(); i += step) {
    const float share = std::clamp((patch[i] - before.low) / range, 0.F, 1.F);
    patch[i] = inverted ? 1 - std::pow(1 - share, power) : std::pow(share, power);
  }
  const Moments after = moments_of(patch, channel, channels);
  const auto factor = static_cast<float>(before.deviation / std::max(after.deviation, 1e-8));
  for (size_t i = at; i < patch.size(); i += step)
    patch[i] =
        (patch[i] - static_cast<float>(after.mean)) * factor + static_cast<float>(before.mean);
}

void augment_intensity(const AugmentConfig& config, std::span<float> patch, int64_t channels,
                       Draws& draws) {
  if (draws.chance(config.noise_probability))
    draws.add_normal(patch, std::sqrt(draws.uniform({0, config.noise_variance})));
  if (draws.chance(config.brightness_probability)) {
    std::vector<float> factors;
    for (int64_t c = 0; c < channels; ++c)
      factors.push_back(static_cast<float>(draws.uniform(config.brightness)));
    for (size_t i = 0; i < patch.size(); ++i) patch[i] *= factors[i % factors.size()];
  }
  if (draws.chance(config.contrast_probability))
    for (int64_t c = 0; c < channels; ++c)
      apply_contrast(patch, c, channels, draws.uniform(config.contrast));
  for (const bool inverted : {true, false})
    if (draws.chance(inverted ? config.gamma_inverted_probability : config.gamma_probability))
      for (int64_t c = 0; c < channels; ++c)
        apply_gamma(patch, c, channels, draws.uniform(config.gamma), inverted);
}

}  // namespace voxlab
