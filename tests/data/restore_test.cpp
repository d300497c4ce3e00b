// Labels restored plane by plane against the whole volume's scores resampled at once.
#include "experiments/data/restore.h"

#include <gtest/gtest.h>

#include "experiments/data/crop.h"
#include "runtime/core/error.h"
#include "runtime/core/rng.h"

namespace voxlab {
namespace {

Tensor noise(const Shape& shape, uint32_t stream = 0) {
  const Philox random(23, stream);
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.uniform(i));
  return Tensor::from_span(shape, std::span<const float>(values));
}

struct Way {
  CaseGeometry geometry;
  int order;
};

// Finer, coarser, mixed and equal grids; a coarsest axis z, y and x; one plane; cubic.
std::vector<Way> ways() {
  const auto way = [](const Size3& from, const Size3& to, const Spacing3& file, int order) {
    CaseGeometry g{.file_size = {to[0] + 3, to[1] + 2, to[2] + 4},
                   .file_spacing = file,
                   .box = {.begin = {1, 2, 3}, .size = to},
                   .spacing = {},
                   .size = from};
    for (size_t a = 0; a < 3; ++a)
      g.spacing[a] = file[a] * static_cast<double>(to[a]) / static_cast<double>(from[a]);
    return Way{g, order};
  };
  std::vector<Way> all;
  for (int order : {0, 1, 3}) {
    all.push_back(way({5, 7, 9}, {11, 13, 8}, {1, 1, 1}, order));
    all.push_back(way({17, 7, 9}, {6, 10, 15}, {1, 1, 1}, order));
    all.push_back(way({9, 6, 5}, {9, 11, 7}, {1, 1, 1}, order));
    all.push_back(way({5, 7, 9}, {5, 7, 9}, {1, 1, 1}, order));
    all.push_back(way({13, 7, 9}, {5, 11, 8}, {5, 1, 1}, order));
    all.push_back(way({3, 7, 9}, {7, 11, 13}, {5, 1, 1}, order));
    all.push_back(way({6, 9, 5}, {11, 4, 8}, {1, 6, 1}, order));
    all.push_back(way({6, 5, 9}, {4, 9, 7}, {1, 1, 6}, order));
    all.push_back(way({1, 9, 8}, {1, 13, 11}, {1, 1, 1}, order));
    all.push_back(way({1, 9, 8}, {4, 6, 11}, {1, 1, 1}, order));
  }
  return all;
}

TEST(RestoreClasses, PlaneByPlaneEqualsTheWholeVolume) {
  uint32_t stream = 0;
  for (const std::vector<uint8_t>& regions :
       {std::vector<uint8_t>{}, std::vector<uint8_t>{2, 1, 4}})
    for (const auto& [g, order] : ways()) {
      const Tensor scores = noise({g.size[0], g.size[1], g.size[2], 3}, ++stream);
      const Tensor resampled = resample_image(scores, g.box.size, rule_for(g, order));
      const Tensor expected = paste(classes_of(resampled, regions), g.box, g.file_size, 0);
      EXPECT_EQ(restore_classes(scores, g, order, regions).to_vector(), expected.to_vector())
          << "order " << order << ", way " << stream;
    }
}

TEST(PlaneResampler, EqualsResampleImage) {
  uint32_t stream = 100;
  for (const auto& [g, order] : ways()) {
    const int64_t channels = 2, row = g.size[2] * channels, plane = g.size[1] * row;
    const Tensor image = noise({g.size[0], g.size[1], g.size[2], channels}, ++stream);
    std::vector<double> got;
    PlaneResampler resampler(g.size, g.box.size, rule_for(g, order), [&](const Tensor& out) {
      const std::vector<double> values = out.to_vector();
      got.insert(got.end(), values.begin(), values.end());
    });
    for (int64_t z = 0; z < g.size[0]; ++z)
      resampler.add(Tensor::from_span({g.size[1], g.size[2], channels},
                                      std::span(image.data<float>() + z * plane, size_t(plane))));
    const std::vector<double> expected =
        resample_image(image, g.box.size, rule_for(g, order)).to_vector();
    ASSERT_EQ(got.size(), expected.size());
    // Axes are taken in another order: the f64 sums differ in their last bits, the f32 by one.
    for (size_t v = 0; v < got.size(); ++v) EXPECT_NEAR(got[v], expected[v], 1.2e-7) << v;
  }
}

// 2 planes to 4: positions -0.25, 0.25, 0.75, 1.25 and so 0, 1/4, 3/4 and 1 of the second plane.
TEST(RestoreClasses, LinearByHand) {
  const CaseGeometry g{.file_size = {4, 1, 1},
                       .file_spacing = {1, 1, 1},
                       .box = {.begin = {0, 0, 0}, .size = {4, 1, 1}},
                       .spacing = {2, 1, 1},
                       .size = {2, 1, 1}};
  // Class 1 leads in plane 0 by 1, class 0 in plane 1 by 2: equal at a third of the way.
  const Tensor scores = Tensor::from_span({2, 1, 1, 2}, std::vector<float>{0, 1, 2, 0});
  EXPECT_EQ(restore_classes(scores, g, 1).to_vector(), (std::vector<double>{1, 1, 0, 0}));
}

TEST(RestoreClasses, PlanesMustBeOfTheCaseAndAllOfThem) {
  const CaseGeometry g{.file_size = {2, 3, 4},
                       .file_spacing = {1, 1, 1},
                       .box = {.begin = {0, 0, 0}, .size = {2, 3, 4}},
                       .spacing = {1, 1, 1},
                       .size = {2, 3, 4}};
  ClassRestorer restorer(g, 1);
  EXPECT_THROW(restorer.add(noise({4, 3, 2})), Error);
  restorer.add(noise({3, 4, 2}));
  EXPECT_THROW(restorer.finish(), Error);
  restorer.add(noise({3, 4, 2}));
  EXPECT_THROW(restorer.add(noise({3, 4, 2})), Error);
  EXPECT_EQ(restorer.finish().shape(), (Shape{2, 3, 4}));
}

}  // namespace
}  // namespace voxlab
