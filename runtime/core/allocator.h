// Caching allocator for host memory, and the counters that memory reports read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "runtime/core/device.h"

namespace voxlab {

struct MemoryReport {
  int64_t current = 0;   // bytes held by live tensors, as asked for
  int64_t peak = 0;      // the highest `current` since reset_peak
  int64_t reserved = 0;  // bytes obtained from the system, cached blocks included
};

// meta tensors are counted too (in `current` and `peak`), so that a meta run predicts memory.
MemoryReport memory_report(Device device);
void reset_peak(Device device);
void release_cached_blocks();  // gives cached host blocks back to the system

// One block of memory with the lifetime of its last tensor. A meta block has no bytes.
class Storage {
 public:
  Storage(int64_t bytes, Device device);
  // Borrows memory kept alive by `owner` (a mapped file, a caller's array).
  Storage(std::byte* data, int64_t bytes, Device device, std::shared_ptr<void> owner);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
  Device device_;
  std::shared_ptr<void> owner_;
};

}  // namespace voxlab
