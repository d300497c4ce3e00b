// Distance transform against brute force; surfaces and their sizes against hand counts.
#include "experiments/metrics/distance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "experiments/metrics/surface.h"
#include "experiments/metrics/surface_element.h"
#include "runtime/core/error.h"
#include "runtime/core/parallel.h"
#include "runtime/core/rng.h"

namespace voxlab {
namespace {

std::vector<uint8_t> random_bits(int64_t n, double share, uint64_t seed) {
  const Philox random(seed, 0, 0);
  std::vector<uint8_t> bits(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) bits[i] = random.uniform(i) < share;
  return bits;
}

std::vector<double> brute_force(const Size3& size, const Spacing& spacing,
                                const std::vector<uint8_t>& queries,
                                const std::vector<uint8_t>& sites) {
  std::vector<double> out;
  const auto place = [&](int64_t i) {
    return Size3{i / (size[1] * size[2]), i / size[2] % size[1], i % size[2]};
  };
  for (size_t q = 0; q < queries.size(); ++q) {
    if (!queries[q]) continue;
    double best = INFINITY;
    for (size_t s = 0; s < sites.size(); ++s) {
      if (!sites[s]) continue;
      double sum = 0;
      for (int a = 0; a < 3; ++a) {
        const double d = spacing[a] * static_cast<double>(place(q)[a] - place(s)[a]);
        sum += d * d;
      }
      best = std::min(best, sum);
    }
    out.push_back(std::sqrt(best));
  }
  return out;
}

TEST(Distance, EqualsBruteForce) {
  const std::vector<Size3> sizes{{7, 9, 11}, {1, 12, 17}, {5, 1, 20},
                                 {13, 6, 1}, {1, 1, 30},  {8, 8, 8}};
  const std::vector<Spacing> spacings{{1, 1, 1}, {3, 0.7, 1.3}, {0.1, 5, 0.02}};
  uint64_t seed = 1;
  for (const Size3& size : sizes)
    for (const Spacing& spacing : spacings)
      for (double share : {0.01, 0.1, 0.6}) {
        const int64_t n = size[0] * size[1] * size[2];
        const auto queries = random_bits(n, 0.3, ++seed), sites = random_bits(n, share, ++seed);
        const auto expected = brute_force(size, spacing, queries, sites);
        const auto got = nearest_distances(size, spacing, queries, sites);
        ASSERT_EQ(got.size(), expected.size());
        for (size_t i = 0; i < got.size(); ++i) {
          if (std::isinf(expected[i]))
            EXPECT_EQ(got[i], expected[i]);
          else
            EXPECT_NEAR(got[i], expected[i], 1e-12 * (1 + expected[i]));
        }
      }
}

TEST(Distance, WithoutSitesIsInfinite) {
  const std::vector<uint8_t> none(8, 0), all(8, 1);
  for (double d : nearest_distances({2, 2, 2}, {1, 1, 1}, all, none)) EXPECT_TRUE(std::isinf(d));
  EXPECT_TRUE(nearest_distances({2, 2, 2}, {1, 1, 1}, none, all).empty());
}

TEST(Distance, LongFirstAxisIsRefused) {
  const std::vector<uint8_t> bits(70000, 1);
  EXPECT_THROW(nearest_distances({70000, 1, 1}, {1, 1, 1}, bits, bits), Error);
  EXPECT_EQ(nearest_distances({1, 1, 70000}, {1, 1, 1}, bits, bits).size(), 70000u);
}

Mask make_mask(const Size3& size, int rank = 3) {
  return {size, rank, std::vector<uint8_t>(static_cast<size_t>(size[0] * size[1] * size[2]), 0)};
}

Mask block(const Size3& size, const Size3& begin, const Size3& end, int rank = 3) {
  Mask mask = make_mask(size, rank);
  for (int64_t d = begin[0]; d < end[0]; ++d)
    for (int64_t h = begin[1]; h < end[1]; ++h)
      for (int64_t w = begin[2]; w < end[2]; ++w) mask.voxels[(d * size[1] + h) * size[2] + w] = 1;
  return mask;
}

double total(const std::vector<SurfaceElement>& elements) {
  return std::accumulate(elements.begin(), elements.end(), 0.0,
                         [](double sum, const SurfaceElement& e) { return sum + e.size; });
}

TEST(Surface, BlockHasItsShellAlsoAtTheGridBorder) {
  // 4x5x6 voxels less the 2x3x4 inside
  for (const Size3& offset : {Size3{2, 2, 2}, Size3{0, 0, 0}}) {
    const Mask m = block({8, 9, 10}, offset, {offset[0] + 4, offset[1] + 5, offset[2] + 6});
    const auto s = surface_distances(m, m, {1, 1, 1}, SurfaceKind::voxel);
    EXPECT_EQ(s.prediction_to_reference.size(), 120u - 24u);
    EXPECT_EQ(s.prediction_to_reference.back().distance, 0);
  }
}

TEST(Surface, PixelMaskHasNoNeighboursAboveAndBelow) {
  const Mask flat = block({1, 5, 5}, {0, 1, 1}, {1, 4, 4}, 2);
  EXPECT_EQ(
      surface_distances(flat, flat, {1, 1, 1}, SurfaceKind::voxel).prediction_to_reference.size(),
      8u);
  const Mask slab = block({1, 5, 5}, {0, 1, 1}, {1, 4, 4}, 3);
  EXPECT_EQ(
      surface_distances(slab, slab, {1, 1, 1}, SurfaceKind::voxel).prediction_to_reference.size(),
      9u);
}

TEST(Surface, AreaOfAVoxelIsAnOctahedronAndOfAPixelADiamond) {
  const Mask voxel = block({3, 3, 3}, {1, 1, 1}, {2, 2, 2});
  const auto s = surface_distances(voxel, voxel, {1, 1, 1}, SurfaceKind::corner);
  EXPECT_EQ(s.prediction_to_reference.size(), 8u);
  EXPECT_NEAR(total(s.prediction_to_reference), std::sqrt(3.0), 1e-12);

  const Mask pixel = block({1, 3, 3}, {0, 1, 1}, {1, 2, 2}, 2);
  const auto p = surface_distances(pixel, pixel, {9, 3, 4}, SurfaceKind::corner);
  EXPECT_EQ(p.prediction_to_reference.size(), 4u);
  EXPECT_NEAR(total(p.prediction_to_reference), 4 * 2.5, 1e-12);  // four hypotenuses of 1.5 and 2
}

TEST(Surface, AreaOfALongBlockApproachesItsSides) {
  // Faces count fully; each edge is bevelled from 1 to sqrt(1/2) of a voxel.
  const auto sizes = surface_element_sizes(3, {2, 3, 5});
  EXPECT_NEAR(sizes[0b11110000], 3 * 5, 1e-12);  // a face across axis 0
  EXPECT_NEAR(sizes[0b11001100], 2 * 5, 1e-12);
  EXPECT_NEAR(sizes[0b10101010], 2 * 3, 1e-12);
  EXPECT_NEAR(sizes[0b11000000], 5 * std::hypot(1.0, 1.5), 1e-12);  // an edge along axis 2
  EXPECT_EQ(sizes[0], 0);
  EXPECT_EQ(sizes[255], 0);
  for (int code = 0; code < 256; ++code) EXPECT_EQ(sizes[code], sizes[255 - code]) << code;
}

TEST(Surface, EmptyMaskGivesInfiniteDistances) {
  const Mask some = block({4, 4, 4}, {1, 1, 1}, {2, 2, 2}), none = make_mask({4, 4, 4});
  for (SurfaceKind kind : {SurfaceKind::voxel, SurfaceKind::corner}) {
    const auto s = surface_distances(some, none, {1, 1, 1}, kind);
    EXPECT_TRUE(std::isinf(s.prediction_to_reference.front().distance));
    EXPECT_TRUE(s.reference_to_prediction.empty());
  }
}

TEST(Surface, BadInputIsRefused) {
  const Mask a = make_mask({4, 4, 4}), b = make_mask({4, 4, 5});
  EXPECT_THROW(surface_distances(a, b, {1, 1, 1}, SurfaceKind::voxel), Error);
  EXPECT_THROW(surface_distances(a, a, {1, 0, 1}, SurfaceKind::voxel), Error);
  EXPECT_THROW(surface_distances(a, a, {1, NAN, 1}, SurfaceKind::voxel), Error);
  Mask shorter = a;
  shorter.voxels.pop_back();
  EXPECT_THROW(surface_distances(shorter, a, {1, 1, 1}, SurfaceKind::voxel), Error);
}

TEST(Surface, SameBitsWithAnyNumberOfThreads) {
  const Size3 size{20, 30, 40};
  const Mask a{size, 3, random_bits(24000, 0.3, 5)}, b{size, 3, random_bits(24000, 0.02, 6)};
  const int threads = thread_count();
  set_thread_count(1);
  const auto one = surface_distances(a, b, {3, 0.7, 1.3}, SurfaceKind::corner);
  set_thread_count(4);
  const auto four = surface_distances(a, b, {3, 0.7, 1.3}, SurfaceKind::corner);
  set_thread_count(threads);
  ASSERT_EQ(one.prediction_to_reference.size(), four.prediction_to_reference.size());
  for (size_t i = 0; i < one.prediction_to_reference.size(); ++i) {
    EXPECT_EQ(one.prediction_to_reference[i].distance, four.prediction_to_reference[i].distance);
    EXPECT_EQ(one.prediction_to_reference[i].size, four.prediction_to_reference[i].size);
  }
}

}  // namespace
}  // namespace voxlab
