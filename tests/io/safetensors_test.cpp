// safetensors: the bytes that are written, round trips, and what a failed write leaves behind.
#include "runtime/io/safetensors.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <numeric>

#include "tests/io/archive.h"

namespace voxlab {
namespace {

using test::error_of;
using test::in_memory;
using test::little_endian;
using test::TemporaryFolder;

std::string content(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string with_header(std::string header, const std::string& data = "") {
  return little_endian(static_cast<uint64_t>(header.size())) + header + data;
}

NamedTensors read(const std::string& bytes) {
  return read_tensors(in_memory(bytes, "m.safetensors"));
}

TEST(Safetensors, BytesThatAreWritten) {
  const TemporaryFolder folder;
  NamedTensors tensors;
  tensors.add("b", Tensor::full({2}, 7, DType::u8));
  tensors.add("a", Tensor::full({1, 2}, 1, DType::f32));
  tensors.metadata["format"] = "pt";
  write_safetensors(folder / "x.safetensors", tensors);
  // Names in the given order, padded to a multiple of 8; the wider type's data first.
  std::string header =
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"U8","shape":[2],"data_offsets":[8,10]},)"
      R"("a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(content(folder / "x.safetensors"),
            with_header(header, little_endian(1.0f) + little_endian(1.0f) + "\7\7"));
}

TEST(Safetensors, RoundTripKeepsEveryDtypeBitForBit) {
  const TemporaryFolder folder;
  NamedTensors tensors;
  for (DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i64, DType::i32,
                      DType::u8, DType::boolean}) {
    const Tensor tensor = Tensor::empty({3, 5}, dtype);
    for (int64_t i = 0; i < tensor.bytes(); ++i)  // any bits, NaN payloads included
      tensor.raw()[i] = static_cast<std::byte>(dtype == DType::boolean ? i % 2 : i * 37 + 11);
    tensors.add(std::string(name(dtype)), tensor);
  }
  tensors.add("scalar", Tensor::full({}, 3, DType::f32));
  tensors.add("empty", Tensor::empty({0, 4}, DType::i64));
  tensors.add("\xc3\xa9 \"quoted\"\n", Tensor::zeros({1}, DType::f32));
  tensors.metadata = {{"step", "12"}, {"note", "h\xc3\xa9"}};
  write_safetensors(folder / "x.safetensors", tensors);
  const NamedTensors again = read_tensors(folder / "x.safetensors");
  EXPECT_EQ(again.metadata, tensors.metadata);
  ASSERT_EQ(again.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const NamedTensor &want = tensors.items()[i], &got = again.items()[i];
    EXPECT_EQ(got.name, want.name);
    ASSERT_EQ(got.tensor.meta(), want.tensor.meta()) << want.name;
    EXPECT_EQ(std::memcmp(got.tensor.raw(), want.tensor.raw(),
                          static_cast<size_t>(want.tensor.bytes())), 0) << want.name;
  }
}

TEST(Safetensors, StridedTensorsAreWrittenDense) {
  const TemporaryFolder folder;
  const std::vector<float> values{0, 1, 2, 3, 4, 5};
  const Tensor base = Tensor::from_span({2, 3}, values);
  const Meta transposed{{3, 2}, DType::f32, Device::cpu};
  NamedTensors tensors;
  tensors.add("t", Tensor::view(base.storage(), transposed, {1, 3}, 0));
  write_safetensors(folder / "x.safetensors", tensors);
  EXPECT_EQ(SafetensorsFile(folder / "x.safetensors").read("t").to_vector(),
            (std::vector<double>{0, 3, 1, 4, 2, 5}));
}

TEST(Safetensors, OneTensorByName) {
  const SafetensorsFile file(test::golden_folder() / "small.safetensors");
  EXPECT_EQ(file.entries().size(), 30u);
  EXPECT_EQ(file.metadata().at("note"), "ckpt golden");
  EXPECT_EQ(file.read("stem.1.num_batches_tracked").item(), 1234);
  EXPECT_NE(error_of([&] { file.read("absent"); }).find("no tensor is named 'absent'"),
            std::string::npos);
}

TEST(Safetensors, AFailedWriteLeavesTheOldFileAlone) {
  const TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  NamedTensors good;
  good.add("a", Tensor::full({2}, 1, DType::f32));
  write_safetensors(path, good);
  const std::string before = content(path);
  NamedTensors bad = good;
  bad.add("meta", Tensor::empty({2}, DType::f32, Device::meta));  // has no bytes to write
  EXPECT_THROW(write_safetensors(path, bad), Error);
  NamedTensors reserved = good;
  reserved.add("__metadata__", Tensor::zeros({1}, DType::f32));
  EXPECT_THROW(write_safetensors(path, reserved), Error);
  NamedTensors not_text = good;
  not_text.metadata["k"] = "\xff";
  EXPECT_THROW(write_safetensors(path, not_text), Error);
  EXPECT_EQ(content(path), before);
  EXPECT_EQ(folder.file_count(), 1u);  // no temporary file is left
}

TEST(Safetensors, AFolderThatIsNotThereIsAnError) {
  const TemporaryFolder folder;
  EXPECT_NE(
      error_of([&] { write_safetensors(folder / "no/x.safetensors", {}); }).find("cannot create"),
      std::string::npos);
}

TEST(Safetensors, HeadersOutsideTheFormatAreRefused) {
  const std::string data(8, '\0');
  const std::string ok = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  EXPECT_EQ(read(with_header(ok + "   ", data)).size(), 1u);
  EXPECT_EQ(read(with_header("{}")).size(), 0u);
  for (const char* bad : {
           R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}})",
           R"({"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
           R"({"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})",
           R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}})",
           R"({"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})",
           R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8e0]}})",
           R"({"a":{"dtype":32,"shape":[2],"data_offsets":[0,8]}})",
           R"({"a":{"dtype":"F32","shape":[2,1,1,1,1,1,1],"data_offsets":[0,8]}})",
           R"({"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]}})",
           R"({"a":null})", R"({"a":[1]})", R"({"__metadata__":{"k":{}},"a":{}})",
           R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} x)",
           R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})"})
    EXPECT_THROW(read(with_header(bad, data)), Error) << bad;
}

TEST(Safetensors, DeeplyNestedJsonNeedsNoStack) {
  std::string header;
  for (int i = 0; i < 200'000; ++i) header += R"({"a":)";
  EXPECT_THROW(read(with_header(header)), Error);
  EXPECT_THROW(read(with_header(R"({"a":)" + std::string(200'000, '['))), Error);
}

TEST(Safetensors, FormatIsToldByContent) {
  // A header of 0x0280 bytes begins like a pickle (0x80 0x02); it is safetensors all the same.
  std::string header = "{}";
  header.resize(0x280, ' ');
  EXPECT_EQ(read_tensors(in_memory(with_header(header), "no_extension")).size(), 0u);
}

}  // namespace
}  // namespace voxlab
