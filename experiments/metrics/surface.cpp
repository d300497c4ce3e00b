// Surface elements of both masks inside their common bounding box, and the distances between them.
#include "experiments/metrics/surface.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "experiments/metrics/distance.h"
#include "experiments/metrics/surface_element.h"
#include "runtime/core/error.h"
#include "runtime/core/parallel.h"

namespace voxlab {
namespace {

// Surface elements on a grid of their own: which places hold one, and the size of each.
struct Elements {
  Size3 size{};
  std::vector<uint8_t> present;
  std::vector<double> sizes;  // of the present ones in row-major order; empty when all are 1
};

Elements voxel_elements(const Mask& mask) {
  const auto [depth, height, width] = mask.size;
  Elements out{mask.size, std::vector<uint8_t>(mask.voxels.size()), {}};
  const std::vector<uint8_t> outside(static_cast<size_t>(width), 0);
  const int64_t piece = piece_of(2 * height * width);
  parallel_for(
      depth, piece, [&, depth = depth, height = height, width = width](int64_t begin, int64_t end) {
        for (int64_t d = begin; d < end; ++d)
          for (int64_t h = 0; h < height; ++h) {
            const uint8_t* row = mask.voxels.data() + (d * height + h) * width;
            const auto neighbour = [&](bool exists, int64_t step) {
              return exists ? row + step : outside.data();
            };
            const uint8_t* up = mask.rank == 2 ? row : neighbour(d > 0, -height * width);
            const uint8_t* down = mask.rank == 2 ? row : neighbour(d + 1 < depth, height * width);
            const uint8_t* front = neighbour(h > 0, -width);
            const uint8_t* back = neighbour(h + 1 < height, width);
            uint8_t* edge = out.present.data() + (d * height + h) * width;
            for (int64_t w = 0; w < width; ++w) edge[w] = up[w] & down[w] & front[w] & back[w];
            for (int64_t w = 0; w < width; ++w) {
              const bool inside = edge[w] && w > 0 && row[w - 1] && w + 1 < width && row[w + 1];
              edge[w] = row[w] && !inside;
            }
          }
      });
  return out;
}

// Codes of one row of corners: corner w looks at voxels w - 1 and w of the 2 or 4 rows around it.
// A code interleaves the rows' bits, so that it is (bits of w - 1) * 2 + (bits of w).
void code_row(const Mask& mask, int64_t d, int64_t h, uint8_t* codes) {
  const auto [depth, height, width] = mask.size;
  std::fill_n(codes, width + 1, uint8_t{0});
  int shift = mask.rank == 2 ? 2 : 6;
  for (int64_t z = mask.rank == 2 ? d : d - 1; z <= d; ++z)
    for (int64_t y = h - 1; y <= h; ++y, shift -= 2) {
      if (z < 0 || z >= depth || y < 0 || y >= height) continue;
      const uint8_t* row = mask.voxels.data() + (z * height + y) * width;
      for (int64_t w = 0; w < width; ++w) codes[w] |= static_cast<uint8_t>(row[w] << shift);
    }
  for (int64_t w = width; w > 0; --w) codes[w] |= static_cast<uint8_t>(codes[w - 1] << 1);
}

Elements corner_elements(const Mask& mask, const std::vector<double>& size_of_code) {
  Elements out;
  out.size = {mask.size[0] + (mask.rank == 3), mask.size[1] + 1, mask.size[2] + 1};
  const auto full = static_cast<uint8_t>(size_of_code.size() - 1);
  std::vector<uint8_t> codes(static_cast<size_t>(out.size[0] * out.size[1] * out.size[2]));
  out.present.resize(codes.size());
  parallel_for(
      out.size[0] * out.size[1], piece_of(6 * out.size[2]), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row)
          code_row(mask, row / out.size[1], row % out.size[1], codes.data() + row * out.size[2]);
        for (int64_t i = begin * out.size[2]; i < end * out.size[2]; ++i)
          out.present[i] = codes[i] != 0 && codes[i] != full;
      });
  for (size_t i = 0; i < codes.size(); ++i)
    if (out.present[i]) out.sizes.push_back(size_of_code[codes[i]]);
  return out;
}

std::vector<SurfaceElement> distances(const Elements& from, const Elements& to,
                                      const Spacing& spacing) {
  const std::vector<double> nearest =
      nearest_distances(from.size, spacing, from.present, to.present);
  std::vector<SurfaceElement> out(nearest.size());
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = {nearest[i], from.sizes.empty() ? 1.0 : from.sizes[i]};
  std::sort(out.begin(), out.end(), [](const SurfaceElement& a, const SurfaceElement& b) {
    return a.distance != b.distance ? a.distance < b.distance : a.size < b.size;
  });
  return out;
}

void check_spacing(const Spacing& spacing, int rank) {
  for (int a = 3 - rank; a < 3; ++a)
    if (!(spacing[a] > 0) || !std::isfinite(spacing[a]))
      fail("surface distance", "expected a positive spacing, got " + std::to_string(spacing[a]));
}

}  // namespace

SurfaceDistances surface_distances(const Mask& prediction, const Mask& reference,
                                   const Spacing& spacing, SurfaceKind kind) {
  check_same_grid("surface distance", prediction, reference);
  check_spacing(spacing, prediction.rank);
  SurfaceDistances out{kind, {}, {}};
  const Box box = bounding_box(prediction, reference);
  if (box.empty()) return out;
  const auto elements = [&](const Mask& mask) {
    if (kind == SurfaceKind::voxel) return voxel_elements(crop(mask, box));
    return corner_elements(crop(mask, box), surface_element_sizes(mask.rank, spacing));
  };
  const Elements predicted = elements(prediction);
  const Elements expected = elements(reference);
  out.prediction_to_reference = distances(predicted, expected, spacing);
  out.reference_to_prediction = distances(expected, predicted, spacing);
  return out;
}

}  // namespace voxlab
