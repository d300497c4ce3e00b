// Element types of tensor files, the bounds of a strided tensor in its storage, and its row-major
// copy.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "runtime/core/tensor.h"
#include "runtime/io/bytes.h"

namespace voxlab {

// What files hold. Two types have no DType of their own: i16 and i8 become i32 in a tensor, which
// loses nothing.
enum class ElementType : uint8_t { f64, f32, bf16, f16, i64, i32, i16, i8, u8, boolean };

int64_t size_of(ElementType type);
DType tensor_dtype(ElementType type);
ElementType element_type(DType dtype);
std::string_view torch_name(ElementType type);        // "float32"
std::string_view safetensors_name(ElementType type);  // "F32"

std::optional<ElementType> element_from_torch(std::string_view dtype);           // "float32"
std::optional<ElementType> element_from_torch_storage(std::string_view class_);  // "FloatStorage"
std::optional<ElementType> element_from_safetensors(std::string_view dtype);     // "F32"
std::optional<ElementType> element_from_numpy(std::string_view code);            // "f4"

// Where a tensor's elements lie in its storage; strides and offset count elements.
struct ElementLayout {
  ElementType type = ElementType::f32;
  Shape shape;
  Strides strides{};
  int64_t offset = 0;
  bool operator==(const ElementLayout&) const = default;
};

// Builds a layout from a file's numbers. Error when a size, stride or offset is negative, when a
// product leaves int64, or when an element lies outside a storage of `storage_bytes`.
ElementLayout checked_layout(const std::string& where, ElementType type,
                             std::span<const int64_t> sizes, std::span<const int64_t> strides,
                             int64_t offset, int64_t storage_bytes);

// The tensor's elements in row-major order. `layout` comes from checked_layout for this storage.
Tensor copy_elements(ByteSpan storage, const ElementLayout& layout);

}  // namespace voxlab
