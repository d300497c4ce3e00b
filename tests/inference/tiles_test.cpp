// Tile positions and importance maps at their edges; the tools' own figures are in the golden test.
#include "experiments/inference/tiles.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

using Starts = std::vector<int64_t>;

TEST(Tiles, NnunetRoundsHalfToEven) {
  EXPECT_EQ(nnunet_tile_starts(13, 8, 0.5), (Starts{0, 2, 5}));  // 0, 2.5, 5
  EXPECT_EQ(nnunet_tile_starts(8, 8, 0.5), (Starts{0}));
  EXPECT_EQ(nnunet_tile_starts(9, 8, 0.5), (Starts{0, 1}));
}

TEST(Tiles, MonaiPullsTheLastWindowBack) {
  EXPECT_EQ(monai_tile_starts(13, 8, 0.5), (Starts{0, 4, 5}));
  EXPECT_EQ(monai_tile_starts(16, 8, 0), (Starts{0, 8}));
  EXPECT_EQ(monai_tile_starts(9, 3, 0.9), (Starts{0, 1, 2, 3, 4, 5, 6}));  // at least one voxel on
}

TEST(Tiles, EveryVoxelIsCovered) {
  for (int64_t image = 1; image < 40; ++image)
    for (int64_t patch = 1; patch <= image; ++patch)
      for (double share : {0.1, 0.25, 0.5, 0.75, 1.0})
        for (const Starts& starts : {nnunet_tile_starts(image, patch, share),
                                     monai_tile_starts(image, patch, 1 - share)}) {
          EXPECT_EQ(starts.front(), 0);
          EXPECT_EQ(starts.back(), image - patch);
          for (size_t i = 1; i < starts.size(); ++i) EXPECT_LE(starts[i] - starts[i - 1], patch);
        }
}

TEST(Tiles, BadValuesAreRefused) {
  EXPECT_THROW(nnunet_tile_starts(7, 8, 0.5), Error);
  EXPECT_THROW(nnunet_tile_starts(8, 0, 0.5), Error);
  EXPECT_THROW(nnunet_tile_starts(8, 8, 0), Error);
  EXPECT_THROW(nnunet_tile_starts(8, 8, 1.5), Error);
  EXPECT_THROW(nnunet_tile_starts(8, 8, NAN), Error);
  EXPECT_THROW(monai_tile_starts(8, 8, 1), Error);
  EXPECT_THROW(monai_tile_starts(8, 8, -0.1), Error);
  EXPECT_THROW(gaussian_importance(TileStyle::monai, Starts{8, 0}), Error);
}

TEST(Importance, NnunetIsCentredOnTheUpperMiddle) {
  const auto map = gaussian_importance(TileStyle::nnunet, Starts{8});
  EXPECT_EQ(map[4], 1.0f);
  EXPECT_FLOAT_EQ(map[3], std::exp(-0.5f));  // sigma is one voxel
  EXPECT_FLOAT_EQ(map[0], std::exp(-8.0f));
}

TEST(Importance, MonaiIsSymmetricWithAFloor) {
  const auto map = gaussian_importance(TileStyle::monai, Starts{4, 64});
  for (size_t i = 0; i < map.size(); ++i) {
    EXPECT_EQ(map[i], map[map.size() - 1 - i]);
    EXPECT_GE(map[i], 1e-3f);
  }
  EXPECT_EQ(map[0], 1e-3f);
}

}  // namespace
}  // namespace voxlab
