// Field names and layout: PKWARE APPNOTE.TXT 6.3.10, section 4.3.
#include "runtime/io/zip.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <unordered_set>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

constexpr uint32_t local_signature = 0x04034b50;
constexpr uint32_t central_signature = 0x02014b50;
constexpr uint32_t end_signature = 0x06054b50;
constexpr uint32_t end64_signature = 0x06064b50;
constexpr uint32_t locator64_signature = 0x07064b50;
constexpr uint64_t end_size = 22, end64_size = 56, locator64_size = 20;
constexpr uint32_t absent32 = 0xFFFFFFFF;  // "see the zip64 field"
constexpr uint16_t absent16 = 0xFFFF;
constexpr uint16_t flag_encrypted = 1u << 0, flag_descriptor = 1u << 3, flag_patched = 1u << 5,
                   flag_strong = 1u << 6, flag_masked = 1u << 13;

struct Directory {
  uint64_t offset = 0, size = 0, entries = 0;
  uint64_t limit = 0;  // the first byte that belongs to the end records
};

struct CentralEntry {
  std::string name;
  uint16_t flags = 0, method = 0;
  uint32_t crc = 0;
  uint64_t compressed = 0, size = 0, local_offset = 0;
};

uint64_t find_end_record(ByteSpan archive, const std::string& where) {
  // The record is last, followed only by its own comment of at most 65535 bytes.
  const uint64_t size = archive.size();
  for (uint64_t comment = 0; comment <= absent16 && comment + end_size <= size; ++comment) {
    ByteReader reader(archive, where);
    reader.seek(size - end_size - comment);
    if (reader.u32() != end_signature) continue;
    reader.take(16);
    if (reader.u16() == comment) return size - end_size - comment;
  }
  fail(where, "zip archive without an end record: the file is cut off or damaged");
}

// Overwrites the classic end record's fields by those of the zip64 record, which must not
// contradict them.
void read_end64(ByteSpan archive, const std::string& where, uint64_t end, Directory& directory) {
  if (end < locator64_size) return;
  ByteReader reader(archive, where);
  reader.seek(end - locator64_size);
  if (reader.u32() != locator64_signature) return;
  const uint32_t disk = reader.u32();
  const uint64_t record = reader.u64();
  const uint32_t disks = reader.u32();
  if (disk != 0 || disks > 1) fail(where, "zip archive spread over several disks");
  if (record > end || end - record < end64_size + locator64_size)
    fail(where, fmt::format("zip64 end record at {} lies outside the file", record));
  reader.seek(record);
  if (reader.u32() != end64_signature) fail(where, "zip64 locator points at no zip64 end record");
  reader.take(8 + 2 + 2);  // record size, versions
  if (reader.u32() != 0 || reader.u32() != 0)
    fail(where, "zip archive spread over several disks");
  const uint64_t here = reader.u64(), entries = reader.u64();
  const uint64_t size = reader.u64(), offset = reader.u64();
  const auto agree = [](uint64_t classic, uint64_t absent, uint64_t wide) {
    return classic == absent || classic == wide;
  };
  if (here != entries || !agree(directory.entries, absent16, entries) ||
      !agree(directory.size, absent32, size) || !agree(directory.offset, absent32, offset))
    fail(where, "the zip and zip64 end records disagree");
  directory = {.offset = offset, .size = size, .entries = entries, .limit = record};
}

Directory read_directory(ByteSpan archive, const std::string& where) {
  const uint64_t end = find_end_record(archive, where);
  ByteReader reader(archive, where);
  reader.seek(end + 4);
  if (reader.u16() != 0 || reader.u16() != 0) fail(where, "zip archive spread over several disks");
  Directory directory;
  const uint16_t here = reader.u16();
  directory.entries = reader.u16();
  if (here != directory.entries) fail(where, "zip archive spread over several disks");
  directory.size = reader.u32();
  directory.offset = reader.u32();
  directory.limit = end;
  read_end64(archive, where, end, directory);
  if (directory.offset > directory.limit || directory.size > directory.limit - directory.offset)
    fail(where, fmt::format("zip directory of {} bytes at {} lies outside the file", directory.size,
                            directory.offset));
  return directory;
}

// Zip64 extended information (4.5.3): holds, in this order, those fields that are absent elsewhere.
void read_extra64(ByteSpan extra, const std::string& where, CentralEntry& entry) {
  ByteReader reader(extra, where);
  while (reader.remaining() >= 4) {
    const uint16_t tag = reader.u16();
    ByteReader field(reader.take(reader.u16()), where);
    if (tag != 1) continue;
    if (entry.size == absent32) entry.size = field.u64();
    if (entry.compressed == absent32) entry.compressed = field.u64();
    if (entry.local_offset == absent32) entry.local_offset = field.u64();
    return;
  }
}

CentralEntry read_central(ByteReader& reader, const std::string& where) {
  if (reader.u32() != central_signature) reader.fail_here("not a zip directory entry");
  CentralEntry entry;
  reader.take(4);  // versions
  entry.flags = reader.u16();
  entry.method = reader.u16();
  reader.take(4);  // time
  entry.crc = reader.u32();
  entry.compressed = reader.u32();
  entry.size = reader.u32();
  const uint16_t name_size = reader.u16(), extra_size = reader.u16(), comment_size = reader.u16();
  if (reader.u16() != 0) fail(where, "zip archive spread over several disks");
  reader.take(6);  // attributes
  entry.local_offset = reader.u32();
  entry.name = as_text(reader.take(name_size));
  read_extra64(reader.take(extra_size), where, entry);
  reader.take(comment_size);
  return entry;
}

// Entry names are only keys here, but a name made to escape a folder marks a hostile archive.
void check_name(const std::string& name, const std::string& where) {
  const auto refuse = [&](const char* why) {
    fail(where, fmt::format("zip entry {} {}", printable(name), why));
  };
  if (name.empty()) refuse("has no name");
  if (!is_utf8(name) || name.find('\0') != std::string::npos) refuse("is not UTF-8 text");
  if (name.find('\\') != std::string::npos) refuse("has a backslash in its name");
  if (name[0] == '/' || (name.size() > 1 && name[1] == ':')) refuse("has an absolute name");
  for (size_t start = 0; start <= name.size();) {
    const size_t end = std::min(name.find('/', start), name.size());
    const std::string_view part = std::string_view(name).substr(start, end - start);
    if (part == "..") refuse("climbs out of the archive");
    start = end + 1;
  }
}

void check_form(const CentralEntry& entry, const std::string& where) {
  check_name(entry.name, where);
  if (entry.flags & (flag_encrypted | flag_patched | flag_strong | flag_masked))
    fail(where, fmt::format("zip entry {} is encrypted or patched", printable(entry.name)));
  if (entry.method != 0)
    fail(where, fmt::format("zip entry {} is compressed (method {}); tensor archives only store",
                            printable(entry.name), entry.method));
  if (entry.compressed != entry.size)
    fail(where, fmt::format("zip entry {} claims {} stored and {} real bytes",
                            printable(entry.name), entry.compressed, entry.size));
}

// The local header must repeat what the directory says: two readers must not see two archives. With
// a data descriptor its sizes stand behind the data, and the directory's are the ones that count.
ByteSpan locate_data(ByteSpan archive, const CentralEntry& entry, const Directory& directory,
                     const std::string& where) {
  ByteReader reader(archive.first(directory.offset), where);
  reader.seek(entry.local_offset);
  const auto refuse = [&](const char* what) {
    fail(where, fmt::format("zip entry {}: {}", printable(entry.name), what));
  };
  if (reader.u32() != local_signature) refuse("no local header where the directory says");
  reader.take(2);  // version
  const uint16_t flags = reader.u16(), method = reader.u16();
  reader.take(4);  // time
  const uint32_t crc = reader.u32(), compressed = reader.u32(), size = reader.u32();
  const uint16_t name_size = reader.u16(), extra_size = reader.u16();
  if (as_text(reader.take(name_size)) != entry.name || flags != entry.flags ||
      method != entry.method)
    refuse("local header and directory disagree");
  const bool described = flags & flag_descriptor;
  const auto agree = [&](uint32_t local, uint64_t central) {
    return local == central || local == absent32 || (described && local == 0);
  };
  if ((crc != entry.crc && !(described && crc == 0)) || !agree(compressed, entry.compressed) ||
      !agree(size, entry.size))
    refuse("local header and directory disagree");
  reader.take(extra_size);
  if (entry.size > reader.remaining()) refuse("data lie outside the file");
  return reader.take(entry.size);
}

uint32_t crc_of(ByteSpan data) {
  return static_cast<uint32_t>(
      crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size()));
}

// Overlapping entries would let a small file stand for a large one.
void check_disjoint(std::vector<ByteSpan> ranges, const std::string& where) {
  std::sort(ranges.begin(), ranges.end(),
            [](ByteSpan a, ByteSpan b) { return a.data() < b.data(); });
  for (size_t i = 1; i < ranges.size(); ++i)
    if (ranges[i - 1].data() + ranges[i - 1].size() > ranges[i].data())
      fail(where, "zip entries overlap");
}

}  // namespace

std::vector<ZipEntry> read_zip(ByteSpan archive, const std::string& where,
                               const ZipOptions& options) {
  const Directory directory = read_directory(archive, where);
  ByteReader reader(archive.subspan(directory.offset, directory.size), where);
  std::vector<ZipEntry> entries;
  std::vector<ByteSpan> ranges;
  std::vector<uint32_t> checksums;
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < directory.entries; ++i) {  // ends with its bytes at the latest
    const CentralEntry entry = read_central(reader, where);
    check_form(entry, where);
    if (!names.insert(entry.name).second)
      fail(where, fmt::format("two zip entries are named {}", printable(entry.name)));
    const ByteSpan data = locate_data(archive, entry, directory, where);
    const std::byte* header = archive.data() + entry.local_offset;
    ranges.emplace_back(header, data.data() + data.size());
    entries.push_back({entry.name, data});
    checksums.push_back(entry.crc);
  }
  if (reader.remaining() != 0) fail(where, "the zip directory has more bytes than its entries");
  check_disjoint(std::move(ranges), where);
  for (size_t i = 0; options.verify_crc && i < entries.size(); ++i)
    if (crc_of(entries[i].data) != checksums[i])
      fail(where, fmt::format("zip entry {}: CRC-32 is {:08x}, the directory says {:08x}; damaged",
                              printable(entries[i].name), crc_of(entries[i].data), checksums[i]));
  return entries;
}

}  // namespace voxlab
