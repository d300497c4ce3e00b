// NIfTI: the reference files, round trips through our own writer, and damaged input.
#include "experiments/data/nifti.h"

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "data_test_support.h"
#include "runtime/core/rng.h"

namespace voxlab {
namespace {

using test::error_of;
using test::file_bytes;
using test::golden_path;
using test::TemporaryFolder;

TEST(Nifti, AgreesWithReferenceFiles) {
  const auto file = golden_path("nifti/expected.json");
  test::expect_pass(golden_nifti(file, test::read_json(file), {}));
}

TEST(Nifti, RefusesHostileFiles) {
  const auto file = golden_path("nifti/hostile/expected.json");
  test::expect_pass(golden_nifti(file, test::read_json(file), {}));
}

TEST(Nifti, IndexOrder) {
  // (i, j, k, channel) of the file is voxels[k][j][i][channel].
  const NiftiImage image = read_nifti(golden_path("nifti/n06_4d.nii.gz"));
  EXPECT_EQ(image.volume.voxels.shape(), (Shape{3, 4, 5, 4}));
  const float* v = image.volume.voxels.data<float>();
  EXPECT_EQ(v[0], 238.5f);           // first value of the record
  EXPECT_EQ(v[1 * 4], 679.0f);       // i = 1
  EXPECT_EQ(v[1 * 5 * 4], 398.75f);  // j = 1: sixth value, first axis fastest, five long
  EXPECT_EQ(v[1], 735.75f);          // channel 1: second of the record's last-axis-fastest values
  EXPECT_EQ(image.volume.spacing,
            (Spacing3{2.5, 1.10000002384185791015625, 0.89999997615814208984375}));
}

Volume oblique_volume(DType dtype) {
  Volume volume;
  volume.voxels = Tensor::empty({3, 4, 5, 2}, dtype);
  const Tensor numbers = Tensor::empty(volume.voxels.shape(), DType::f64);
  for (int64_t i = 0; i < numbers.numel(); ++i)
    numbers.data<double>()[i] = static_cast<double>(i % 113);
  volume.voxels.copy_from(numbers);
  volume.spacing = {2.5, 1.5, 0.75};
  const double c = std::cos(0.4), s = std::sin(0.4);
  // Left-handed: i turned about z, j likewise, k downwards.
  volume.affine = {
      {{0.75 * c, -1.5 * s, 0, -20.5}, {0.75 * s, 1.5 * c, 0, 11}, {0, 0, -2.5, 7}, {0, 0, 0, 1}}};
  return volume;
}

TEST(Nifti, RoundTripOfEveryType) {
  const TemporaryFolder folder;
  for (NiftiType type : {NiftiType::uint8, NiftiType::int8, NiftiType::int16, NiftiType::uint16,
                         NiftiType::int32, NiftiType::uint32, NiftiType::int64, NiftiType::uint64,
                         NiftiType::float32, NiftiType::float64}) {
    for (const char* ending : {".nii", ".nii.gz"}) {
      const auto file = folder.path() / (std::string(name(type)) + ending);
      const Volume volume = oblique_volume(DType::f32);
      write_nifti(file, volume, type);
      const NiftiImage back = read_nifti(file);
      EXPECT_EQ(back.header.type, type);
      EXPECT_EQ(back.volume.voxels.to_vector(), volume.voxels.to_vector()) << file;
      EXPECT_EQ(back.volume.spacing, volume.spacing);
      EXPECT_TRUE(back.warnings.empty());
      for (size_t r = 0; r < 3; ++r)
        for (size_t c = 0; c < 4; ++c)
          EXPECT_EQ(back.volume.affine[r][c],
                    static_cast<double>(static_cast<float>(volume.affine[r][c])));
    }
  }
}

TEST(Nifti, WrittenQformSaysWhatTheSformSays) {
  const TemporaryFolder folder;
  for (const double angle : {0.0, 0.4, 2.0, 3.14159265358979}) {
    for (size_t about = 0; about < 3; ++about) {
      Volume volume = oblique_volume(DType::u8);
      const size_t p = (about + 1) % 3, q = (about + 2) % 3;
      Affine turn = identity_affine();
      turn[p][p] = turn[q][q] = std::cos(angle);
      turn[p][q] = -std::sin(angle);
      turn[q][p] = std::sin(angle);
      for (size_t r = 0; r < 3; ++r)
        for (size_t c = 0; c < 3; ++c) volume.affine[r][c] = turn[r][c] * volume.spacing[2 - c];
      const auto file = folder.path() / "turned.nii";
      write_nifti(file, volume, NiftiType::uint8);
      NiftiHeader header = read_nifti_header(file);
      ASSERT_EQ(header.qform_code, 1);
      header.sform_code = 0;
      const NiftiGrid grid = grid_of(header, "qform");
      for (size_t r = 0; r < 3; ++r)
        for (size_t c = 0; c < 4; ++c) EXPECT_NEAR(grid.affine[r][c], volume.affine[r][c], 2e-6);
    }
  }
}

TEST(Nifti, ShearedAffineIsWrittenAsSformOnly) {
  const TemporaryFolder folder;
  Volume volume = oblique_volume(DType::u8);
  volume.affine[0][1] += 0.3;
  write_nifti(folder.path() / "sheared.nii", volume, NiftiType::uint8);
  EXPECT_EQ(read_nifti_header(folder.path() / "sheared.nii").qform_code, 0);
}

TEST(Nifti, WritesOnTheGridOfAnotherFile) {
  const TemporaryFolder folder;
  for (const char* source :
       {"nifti/n02_uint8_qform.nii", "nifti/n08_qfac_negative.nii.gz", "nifti/n09_no_form.nii",
        "nifti/n10_forms_differ.nii.gz", "nifti/n05_big_endian.nii"}) {
    const NiftiImage image = read_nifti(golden_path(source));
    const Size3 size = image.volume.size();
    const Tensor labels = Tensor::full({size[0], size[1], size[2]}, 3, DType::u8);
    write_nifti_like(folder.path() / "labels.nii.gz", labels, image.header, NiftiType::uint8);
    const NiftiImage back = read_nifti(folder.path() / "labels.nii.gz");
    EXPECT_EQ(back.volume.affine, image.volume.affine) << source;
    EXPECT_EQ(back.volume.spacing, image.volume.spacing);
    EXPECT_EQ(back.header.qform_code, image.header.qform_code);
    EXPECT_EQ(back.header.sform_code, image.header.sform_code);
    EXPECT_EQ(back.header.quaternion, image.header.quaternion);
    EXPECT_EQ(back.volume.voxels.to_vector(), labels.to_vector());
  }
  const NiftiHeader grid = read_nifti_header(golden_path("nifti/n02_uint8_qform.nii"));
  const std::string error = error_of([&] {
    write_nifti_like(folder.path() / "x.nii", Tensor::zeros({5, 5, 6}, DType::u8), grid,
                     NiftiType::uint8);
  });
  EXPECT_NE(error.find("(4, 5, 6)"), std::string::npos) << error;
}

TEST(Nifti, EqualInputGivesEqualBytes) {
  const TemporaryFolder folder;
  const Volume volume = oblique_volume(DType::f32);
  write_nifti(folder.path() / "a.nii.gz", volume, NiftiType::float32);
  write_nifti(folder.path() / "b.nii.gz", volume, NiftiType::float32);
  EXPECT_EQ(file_bytes(folder.path() / "a.nii.gz"), file_bytes(folder.path() / "b.nii.gz"));
}

TEST(Nifti, ValuesThatDoNotFitAreRefusedAndNothingIsLeft) {
  const TemporaryFolder folder;
  Volume volume = oblique_volume(DType::f32);
  for (const float bad : {256.0f, -1.0f, 0.5f, std::numeric_limits<float>::quiet_NaN()}) {
    volume.voxels.data<float>()[7] = bad;
    const std::string error =
        error_of([&] { write_nifti(folder.path() / "a.nii.gz", volume, NiftiType::uint8); });
    EXPECT_NE(error.find("cannot be written"), std::string::npos) << error;
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_NE(error_of([&] {
              write_nifti(folder.path() / "a.img", volume, NiftiType::float32);
            }).find(".nii.gz"),
            std::string::npos);
}

// NIfTI-2 has other offsets and wider fields; built here by hand from nifti2.h.
TEST(Nifti, ReadsVersionTwo) {
  std::vector<std::byte> bytes(544 + 2 * 3 * 2, std::byte{0});
  const auto put = [&](size_t offset, auto value) {
    std::memcpy(bytes.data() + offset, &value, sizeof value);
  };
  put(0, int32_t{540});
  std::memcpy(bytes.data() + 4, "n+2\0\r\n\032\n", 8);
  put(12, int16_t{4});
  put(14, int16_t{16});
  const int64_t dim[] = {3, 2, 3, 1, 1, 1, 1, 1};
  for (size_t i = 0; i < 8; ++i) put(16 + 8 * i, dim[i]);
  const double pixdim[] = {1, 0.5, 0.25, 3, 1, 1, 1, 1};
  for (size_t i = 0; i < 8; ++i) put(104 + 8 * i, pixdim[i]);
  put(168, int64_t{544});
  put(348, int32_t{1});
  const double srow[3][4] = {{0.5, 0, 0, 1}, {0, 0.25, 0, 2}, {0, 0, 3, 4}};
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 4; ++c) put(400 + 32 * r + 8 * c, srow[r][c]);
  for (size_t i = 0; i < 6; ++i) put(544 + 2 * i, static_cast<int16_t>(10 * i));
  const NiftiImage image = read_nifti(bytes, "two.nii");
  EXPECT_EQ(image.header.version, 2);
  EXPECT_EQ(image.volume.voxels.shape(), (Shape{1, 3, 2, 1}));
  EXPECT_EQ(image.volume.voxels.to_vector(), (std::vector<double>{0, 10, 20, 30, 40, 50}));
  EXPECT_EQ(image.volume.spacing, (Spacing3{3, 0.25, 0.5}));
  EXPECT_EQ(image.volume.affine[1][3], 2);
}

std::vector<std::byte> gzip(std::span<const std::byte> bytes) {
  z_stream z{};
  EXPECT_EQ(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::vector<std::byte> packed(deflateBound(&z, bytes.size()));
  z.next_in = reinterpret_cast<z_const Bytef*>(const_cast<std::byte*>(bytes.data()));
  z.avail_in = static_cast<uInt>(bytes.size());
  z.next_out = reinterpret_cast<Bytef*>(packed.data());
  z.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
  packed.resize(z.total_out);
  deflateEnd(&z);
  return packed;
}

TEST(Nifti, SeveralGzipStreamsInOneFile) {
  // pigz and bgzip cut a file into several gzip streams end to end.
  const std::vector<std::byte> plain = file_bytes(golden_path("nifti/n05_big_endian.nii"));
  std::vector<std::byte> packed;
  for (size_t at = 0; at < plain.size(); at += 100) {
    const auto piece = gzip(std::span(plain).subspan(at, std::min<size_t>(100, plain.size() - at)));
    packed.insert(packed.end(), piece.begin(), piece.end());
  }
  EXPECT_EQ(read_nifti(packed, "packed").volume.voxels.to_vector(),
            read_nifti(plain, "plain").volume.voxels.to_vector());
  packed.back() ^= std::byte{1};  // the last stream's length field
  EXPECT_NE(error_of([&] { read_nifti(packed, "packed"); }).find("damaged"), std::string::npos);
}

TEST(Nifti, GzipCannotPromiseMoreThanItCanHold) {
  // 30000^2 x 3 int16 voxels announced in a file of a few hundred bytes: refused before any
  // allocation.
  const TemporaryFolder folder;
  Volume volume = oblique_volume(DType::u8);
  write_nifti(folder.path() / "a.nii", volume, NiftiType::uint8);
  std::vector<std::byte> bytes = file_bytes(folder.path() / "a.nii");
  const int16_t dim[] = {3, 30000, 30000, 3};
  std::memcpy(bytes.data() + 40, dim, sizeof dim);
  EXPECT_NE(error_of([&] { read_nifti(bytes, "a.nii"); }).find("can hold only"), std::string::npos);
}

// Reads bytes that may be anything: an Error is fine, anything else is not.
void survive(const std::vector<std::byte>& bytes) {
  try {
    const NiftiImage image = read_nifti(bytes, "damaged");
    EXPECT_LE(image.volume.voxels.bytes(), 16 << 20);
  } catch (const Error&) {
  }
}

TEST(NiftiFuzz, EveryTruncation) {
  for (const char* source :
       {"nifti/n06_4d.nii.gz", "nifti/n05_big_endian.nii", "nifti/n13_extension.nii.gz"}) {
    const std::vector<std::byte> whole = file_bytes(golden_path(source));
    for (size_t length = 0; length < whole.size(); ++length)
      EXPECT_THROW(read_nifti(std::span(whole).first(length), "cut"), Error)
          << source << " " << length;
  }
}

TEST(NiftiFuzz, EveryBitOfAHeader) {
  for (const char* source : {"nifti/n02_uint8_qform.nii", "nifti/n05_big_endian.nii"}) {
    std::vector<std::byte> bytes = file_bytes(golden_path(source));
    for (size_t bit = 0; bit < 8 * 352; ++bit) {
      bytes[bit / 8] ^= std::byte(1u << bit % 8);
      survive(bytes);
      bytes[bit / 8] ^= std::byte(1u << bit % 8);
    }
  }
}

TEST(NiftiFuzz, RandomBytesInHeaderAndStream) {
  const Philox random(7, 0, 0);
  uint64_t draw = 0;
  const auto below = [&](size_t n) {
    return static_cast<size_t>(random.uniform(draw++) * double(n));
  };
  for (const char* source : {"nifti/n01_int16_scaled.nii.gz", "nifti/n02_uint8_qform.nii",
                             "nifti/n05_big_endian.nii", "nifti/n06_4d.nii.gz"}) {
    const std::vector<std::byte> whole = file_bytes(golden_path(source));
    for (int round = 0; round < 2000; ++round) {
      std::vector<std::byte> bytes = whole;
      for (size_t change = below(6) + 1; change > 0; --change)
        bytes[below(bytes.size())] = std::byte(below(256));
      survive(bytes);
    }
  }
}

}  // namespace
}  // namespace voxlab
