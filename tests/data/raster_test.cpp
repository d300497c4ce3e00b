// Pictures: values against files that Pillow wrote, and files that are damaged, cut off or lie.
#include "experiments/data/raster.h"

#include <zlib.h>

#include "data_test_support.h"

namespace voxlab {
namespace {

using test::error_of;
using Bytes = std::vector<std::byte>;

// Written by Pillow 11. 3 x 2, RGB: 0, 10, 20, ... 170.
const std::string rgb_png =
    "89504e470d0a1a0a0000000d49484452000000030000000208020000001216f14d000000174944415478"
    "9c6364e01291939393939363898a8a82b00016bc029a872eb38c0000000049454e44ae426082";
// 2 x 2 indices 0, 1 / 2, 1 of black, red, (0, 128, 0).
const std::string palette_png =
    "89504e470d0a1a0a0000000d49484452000000020000000202030000000fd8e5b700000009504c544500"
    "0000ff00000080005c24da470000000c49444154789c63106098000000c400a1165cba96000000004945"
    "4e44ae426082";
// 3 x 2, one bit: 0, 1, 1 / 1, 0, 0.
const std::string bit_png =
    "89504e470d0a1a0a0000000d4948445200000003000000020100000000b50f5bb70000000c4944415478"
    "9c6348605200000148008332485d580000000049454e44ae426082";
// 2 x 2 of 16 bits: 1000, 2 / 65535, 0.
const std::string deep_png =
    "89504e470d0a1a0a0000000d49484452000000020000000210000000000"
    "74d8ebb000000124944415478"
    "9c63607ec1c0c4f0ff3f0303000e6a02ec5534f4110000000049454e44ae426082";
// 2 x 1, grey and transparency: (7, 255), (9, 0).
const std::string alpha_png =
    "89504e470d0a1a0a0000000d49484452000000020000000108040000005e2bb7010000000d4944415478"
    "9c6364ffcfc408000328010b4e054ae70000000049454e44ae426082";
// 24 x 16, all (200, 100, 50).
const std::string rgb_jpeg =
    "ffd8ffe000104a46494600010100000100010000ffdb0043000201010101010201010102020202020403"
    "020202020504040304060506060605060606070908060709070606080b08090a0a0a0a0a06080b0c0b0a"
    "0c090a0a0affdb004301020202020202050303050a0706070a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"
    "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0affc00011080010001803"
    "011100021101031101ffc4001500010100000000000000000000000000000005ffc40014100100000000"
    "000000000000000000000000ffc4001501010100000000000000000000000000000008ffc40014110100"
    "000000000000000000000000000000ffda000c03010002110311003f009e95d6c00000000fffd9";

Bytes bytes_of(const std::string& hex) {
  Bytes bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(std::byte(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

std::vector<double> values(const std::string& hex, RasterUse use) {
  return read_raster(bytes_of(hex), "x", use).volume.voxels.to_vector();
}

TEST(Raster, ReadsPngAsItWasWritten) {
  const Raster rgb = read_raster(bytes_of(rgb_png), "x", RasterUse::image);
  EXPECT_EQ(rgb.volume.voxels.shape(), (Shape{1, 2, 3, 3}));
  EXPECT_EQ(rgb.volume.voxels.dtype(), DType::u8);
  EXPECT_FALSE(rgb.lossy);
  EXPECT_EQ(rgb.volume.spacing, (Spacing3{1, 1, 1}));
  EXPECT_EQ(orientation(rgb.volume.affine), "LPS");
  const std::vector<double> found = rgb.volume.voxels.to_vector();
  for (size_t i = 0; i < 18; ++i) EXPECT_EQ(found[i], 10.0 * double(i));
  EXPECT_EQ(values(deep_png, RasterUse::image), (std::vector<double>{1000, 2, 65535, 0}));
  EXPECT_EQ(values(alpha_png, RasterUse::image), (std::vector<double>{7, 9}));
}

TEST(Raster, ImagesHaveColoursAndLabelsHaveNumbers) {
  EXPECT_EQ(values(palette_png, RasterUse::image),
            (std::vector<double>{0, 0, 0, 255, 0, 0, 0, 128, 0, 255, 0, 0}));
  EXPECT_EQ(values(palette_png, RasterUse::labels), (std::vector<double>{0, 1, 2, 1}));
  EXPECT_EQ(values(bit_png, RasterUse::image), (std::vector<double>{0, 255, 255, 255, 0, 0}));
  EXPECT_EQ(values(bit_png, RasterUse::labels), (std::vector<double>{0, 1, 1, 1, 0, 0}));
  EXPECT_EQ(values(deep_png, RasterUse::labels), (std::vector<double>{1000, 2, 65535, 0}));
  EXPECT_EQ(error_of([] { values(rgb_png, RasterUse::labels); }),
            "x: expected one label a pixel, got the colour (0, 10, 20) at (y, x) = (0, 0)");
}

TEST(Raster, ReadsJpeg) {
  const Raster jpeg = read_raster(bytes_of(rgb_jpeg), "x", RasterUse::image);
  EXPECT_TRUE(jpeg.lossy);
  EXPECT_EQ(jpeg.volume.voxels.shape(), (Shape{1, 16, 24, 3}));
  const std::vector<double> found = jpeg.volume.voxels.to_vector();
  for (size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i], (std::array{200, 100, 50}[i % 3]));
  // Brightness: 0.299 red + 0.587 green + 0.114 blue = 124.2.
  const std::vector<double> grey = values(rgb_jpeg, RasterUse::labels);
  EXPECT_EQ(grey, std::vector<double>(16 * 24, 124));
}

// Every beginning of a file is refused: nothing is guessed for what is missing.
TEST(Raster, RefusesFilesThatEndEarly) {
  for (const std::string& hex : {rgb_png, palette_png, bit_png, deep_png, rgb_jpeg}) {
    const Bytes whole = bytes_of(hex);
    for (size_t length = 0; length < whole.size(); ++length) {
      const std::string error =
          error_of([&] { read_raster(std::span(whole).first(length), "cut", RasterUse::image); });
      EXPECT_EQ(error.rfind("cut: ", 0), 0u) << length << ": " << error;
      EXPECT_EQ(error.find('\n'), std::string::npos);
    }
  }
}

// One wrong byte may still be a picture, but never anything else than a picture or an Error.
TEST(Raster, SurvivesWrongBytes) {
  int64_t refused = 0, read = 0;
  for (const std::string& hex : {rgb_png, palette_png, deep_png, rgb_jpeg}) {
    const Bytes whole = bytes_of(hex);
    for (size_t at = 4; at < whole.size(); ++at)
      for (const int change : {0x01, 0x80, 0xff}) {
        Bytes wrong = whole;
        wrong[at] ^= std::byte(change);
        for (const RasterUse use : {RasterUse::image, RasterUse::labels}) try {
            EXPECT_EQ(read_raster(wrong, "wrong", use).volume.size()[0], 1);
            ++read;
          } catch (const Error& error) {
            EXPECT_EQ(std::string(error.what()).rfind("wrong: ", 0), 0u) << error.what();
            ++refused;
          }
      }
  }
  EXPECT_GT(refused, 1000);  // a PNG has a checksum over every chunk
  EXPECT_GT(read, 100);
}

void put_be(Bytes& bytes, size_t at, uint64_t value, size_t count) {
  for (size_t i = 0; i < count; ++i) bytes[at + i] = std::byte(value >> 8 * (count - 1 - i));
}

TEST(Raster, BelievesNoHeader) {
  Bytes png = bytes_of(rgb_png);
  const auto claim = [&](uint32_t width, uint32_t height) {
    put_be(png, 16, width, 4);
    put_be(png, 20, height, 4);
    put_be(png, 29, crc32(0, reinterpret_cast<const Bytef*>(png.data() + 12), 17), 4);
    return error_of([&] { read_raster(png, "big", RasterUse::image); });
  };
  EXPECT_EQ(claim(8000, 8000),
            "big: the header announces 8000 x 8000 pixels; the file can hold only 27520");
  EXPECT_NE(claim(60000, 60000).find("at most 65535 a side and 67108864 in all"),
            std::string::npos);
  EXPECT_NE(claim(100000, 1).find("at most 65535 a side"), std::string::npos);
  EXPECT_NE(claim(0, 5).find("damaged PNG"), std::string::npos);
  Bytes jpeg = bytes_of(rgb_jpeg);
  const size_t frame = rgb_jpeg.find("ffc0") / 2;
  put_be(jpeg, frame + 5, 8000, 2);
  put_be(jpeg, frame + 7, 8000, 2);
  EXPECT_NE(
      error_of([&] { read_raster(jpeg, "big", RasterUse::image); }).find("the file can hold only"),
      std::string::npos);
  EXPECT_EQ(error_of([] { read_raster(Bytes(40), "zeros", RasterUse::image); }),
            "zeros: neither a PNG nor a JPEG file");
}

TEST(Raster, LabelsComeBackFromPng) {
  const test::TemporaryFolder folder;
  Tensor labels = Tensor::empty({1, 3, 2}, DType::i32);
  for (int32_t v = 0; v < 6; ++v) labels.data<int32_t>()[v] = 51 * v;
  write_label_png(folder / "l.png", labels);
  const Raster back = read_raster(folder / "l.png", RasterUse::labels);
  EXPECT_EQ(back.volume.voxels.shape(), (Shape{1, 3, 2, 1}));
  EXPECT_EQ(back.volume.voxels.to_vector(), (std::vector<double>{0, 51, 102, 153, 204, 255}));
  labels.data<int32_t>()[5] = 256;
  EXPECT_EQ(error_of([&] { write_label_png(folder / "m.png", labels); }),
            (folder / "m.png").string() + ": label 256 does not fit into a byte of a PNG");
  EXPECT_EQ(folder.file_count(), 1u);
}

TEST(Raster, IsToldByTheEnding) {
  for (const char* name : {"a.png", "a.JPG", "b/a.Jpeg"}) EXPECT_TRUE(is_raster(name)) << name;
  for (const char* name : {"a.nii.gz", "png", "a.tif"}) EXPECT_FALSE(is_raster(name)) << name;
}

}  // namespace
}  // namespace voxlab
