// Device: where a tensor lives, and so where an op on it runs.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

namespace voxlab {

// cpu: host memory, fast kernels. ref: host memory, plain loops that compute in f64 (the oracle).
// meta: shape and dtype only; nothing is allocated or computed.
enum class Device : uint8_t { cpu, ref, meta };

constexpr auto enum_names(Device) {
  return std::array{std::pair{std::string_view("cpu"), Device::cpu},
                    std::pair{std::string_view("ref"), Device::ref},
                    std::pair{std::string_view("meta"), Device::meta}};
}

constexpr bool is_host(Device device) { return device == Device::cpu || device == Device::ref; }

}  // namespace voxlab
