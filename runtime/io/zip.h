// Zip archives as torch.save writes them: entries stored without compression, zip64, CRC-32.
#pragma once

#include <string>
#include <vector>

#include "runtime/io/bytes.h"

namespace voxlab {

struct ZipEntry {
  std::string name;
  ByteSpan data;  // points into the archive
};

struct ZipOptions {
  // Off only for archives whose writer left the checksums out
  // (torch.serialization.set_crc32_options).
  bool verify_crc = true;
};

// All entries, in the order of the central directory. Error on anything ambiguous or unsafe:
// compression, encryption, names that are absolute, climb or repeat, ranges that overlap or leave
// the file, end records that disagree, a wrong CRC. Nothing is allocated from a claimed count or
// size.
std::vector<ZipEntry> read_zip(ByteSpan archive, const std::string& where,
                               const ZipOptions& options = {});

}  // namespace voxlab
