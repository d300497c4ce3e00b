// The zip reader on archives built byte by byte.
#include "runtime/io/zip.h"

#include <gtest/gtest.h>

#include "tests/io/archive.h"

namespace voxlab {
namespace {

using test::error_of;
using test::make_zip;
using test::ZipPart;

std::vector<ZipEntry> read(const std::string& archive, ZipOptions options = {}) {
  return read_zip(std::as_bytes(std::span(archive.data(), archive.size())), "archive", options);
}

std::string refusal(const std::string& archive) {
  return error_of([&] { read(archive); });
}

TEST(Zip, StoredEntriesPointIntoTheArchive) {
  const std::string archive = make_zip({{"a/x", "123456789"}, {"a/empty", ""}});
  // The check value of CRC-32: 0xCBF43926 for "123456789".
  EXPECT_NE(archive.find(test::little_endian<uint32_t>(0xCBF43926)), std::string::npos);
  const std::vector<ZipEntry> entries = read(archive);
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].name, "a/x");
  EXPECT_EQ(as_text(entries[0].data), "123456789");
  EXPECT_TRUE(entries[1].data.empty());
}

TEST(Zip, ACommentMayFollowTheEndRecord) {
  std::string archive = make_zip({{"a/x", "1"}});
  archive[archive.size() - 2] = 5;
  EXPECT_EQ(read(archive + "hello").size(), 1u);
  EXPECT_EQ(refusal(archive + "hell"),
            "archive: zip archive without an end record: the file is cut off or damaged");
}

TEST(Zip, UnsafeNamesAreRefused) {
  for (const char* name : {"", "/a", "../a", "a/../b", "a/..", "C:x", "a\\b", "a/\xff"})
    EXPECT_NE(refusal(make_zip({{name, "1"}})).find("zip entry"), std::string::npos) << name;
  EXPECT_EQ(read(make_zip({{"a/..b/.c", "1"}})).size(), 1u);  // dots that climb nowhere
}

TEST(Zip, AmbiguousOrUnreadableEntriesAreRefused) {
  EXPECT_NE(refusal(make_zip({{"a", "1"}, {"a", "2"}})).find("two zip entries"), std::string::npos);
  EXPECT_NE(refusal(make_zip({{.name = "a", .data = "1", .crc_xor = 1}})).find("CRC-32"),
            std::string::npos);
  EXPECT_NE(refusal(make_zip({{.name = "a", .data = "1", .flags = 1}})).find("encrypted"),
            std::string::npos);
  EXPECT_NE(refusal(make_zip({{.name = "a", .data = "1", .method = 8}})).find("compressed"),
            std::string::npos);
}

TEST(Zip, ChecksumsCanBeIgnored) {
  const std::string archive = make_zip({{.name = "a", .data = "1", .crc_xor = 1}});
  EXPECT_EQ(read(archive, {.verify_crc = false}).size(), 1u);
}

TEST(Zip, OverlappingEntriesAreRefused) {
  // Entry "b", its header and data, lies within the data of entry "a".
  const std::string inner = make_zip({{"b", "22"}});
  const std::string local = inner.substr(0, inner.find("PK\x01\x02"));
  std::string archive = make_zip({{"a", local}, {"b", "22"}});
  const size_t second = archive.rfind("PK\x01\x02");
  archive.replace(second + 42, 4, test::little_endian<uint32_t>(30 + 1));
  EXPECT_EQ(refusal(archive), "archive: zip entries overlap");
}

TEST(Zip, DirectoryAndLocalHeaderMustAgree) {
  std::string archive = make_zip({{"name", "1"}});
  archive[30] = 'N';  // in the local header only
  EXPECT_NE(refusal(archive).find("disagree"), std::string::npos);
}

}  // namespace
}  // namespace voxlab
