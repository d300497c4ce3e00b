#include "runtime/io/element.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cstring>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

struct ElementInfo {
  ElementType type;
  int64_t size;
  DType dtype;
  std::string_view torch, torch_storage, safetensors, numpy;
};

// In the order of the enum.
constexpr std::array<ElementInfo, 10> element_table{{
    {ElementType::f64, 8, DType::f64, "float64", "DoubleStorage", "F64", "f8"},
    {ElementType::f32, 4, DType::f32, "float32", "FloatStorage", "F32", "f4"},
    {ElementType::bf16, 2, DType::bf16, "bfloat16", "BFloat16Storage", "BF16", ""},
    {ElementType::f16, 2, DType::f16, "float16", "HalfStorage", "F16", "f2"},
    {ElementType::i64, 8, DType::i64, "int64", "LongStorage", "I64", "i8"},
    {ElementType::i32, 4, DType::i32, "int32", "IntStorage", "I32", "i4"},
    {ElementType::i16, 2, DType::i32, "int16", "ShortStorage", "I16", "i2"},
    {ElementType::i8, 1, DType::i32, "int8", "CharStorage", "I8", "i1"},
    {ElementType::u8, 1, DType::u8, "uint8", "ByteStorage", "U8", "u1"},
    {ElementType::boolean, 1, DType::boolean, "bool", "BoolStorage", "BOOL", "b1"},
}};

const ElementInfo& info(ElementType type) { return element_table[static_cast<size_t>(type)]; }

std::optional<ElementType> find_by(std::string_view ElementInfo::*field, std::string_view text) {
  if (text.empty()) return std::nullopt;
  for (const ElementInfo& entry : element_table)
    if (entry.*field == text) return entry.type;
  return std::nullopt;
}

// Copies a strided tensor of `Size`-byte elements to a dense destination.
template <size_t Size>
void gather(const std::byte* source, const ElementLayout& layout, std::byte* to) {
  const int rank = layout.shape.rank();
  const int64_t count = layout.shape.numel();
  std::array<int64_t, Shape::max_rank> at{};
  int64_t from = layout.offset;
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(to + static_cast<size_t>(i) * Size, source + static_cast<size_t>(from) * Size,
                Size);
    for (int axis = rank - 1; axis >= 0; --axis) {
      const auto k = static_cast<size_t>(axis);
      from += layout.strides[k];
      if (++at[k] < layout.shape[axis]) break;
      from -= layout.strides[k] * layout.shape[axis];
      at[k] = 0;
    }
  }
}

void gather(const std::byte* source, const ElementLayout& layout, std::byte* to) {
  switch (size_of(layout.type)) {
    case 1: return gather<1>(source, layout, to);
    case 2: return gather<2>(source, layout, to);
    case 4: return gather<4>(source, layout, to);
    default: return gather<8>(source, layout, to);
  }
}

bool is_dense(const ElementLayout& layout) {
  int64_t step = 1;
  for (int axis = layout.shape.rank() - 1; axis >= 0; --axis) {
    const int64_t size = layout.shape[axis];
    if (size != 1 && layout.strides[static_cast<size_t>(axis)] != step) return false;
    step *= size;
  }
  return true;
}

// Small integers were gathered into the front of an i32 buffer: spread them from the back.
template <class Small>
void widen_in_place(std::byte* data, int64_t count) {
  for (int64_t i = count - 1; i >= 0; --i) {
    Small small;
    std::memcpy(&small, data + static_cast<size_t>(i) * sizeof(Small), sizeof(Small));
    const int32_t wide = small;
    std::memcpy(data + static_cast<size_t>(i) * sizeof(int32_t), &wide, sizeof(int32_t));
  }
}

}  // namespace

int64_t size_of(ElementType type) { return info(type).size; }
DType tensor_dtype(ElementType type) { return info(type).dtype; }
std::string_view torch_name(ElementType type) { return info(type).torch; }
std::string_view safetensors_name(ElementType type) { return info(type).safetensors; }

ElementType element_type(DType dtype) {
  for (const ElementInfo& entry : element_table)
    if (entry.dtype == dtype) return entry.type;  // i32 stands before the types that widen to it
  fail("element_type", "unknown dtype");
}

std::optional<ElementType> element_from_torch(std::string_view dtype) {
  return find_by(&ElementInfo::torch, dtype);
}
std::optional<ElementType> element_from_torch_storage(std::string_view class_) {
  return find_by(&ElementInfo::torch_storage, class_);
}
std::optional<ElementType> element_from_safetensors(std::string_view dtype) {
  return find_by(&ElementInfo::safetensors, dtype);
}
std::optional<ElementType> element_from_numpy(std::string_view code) {
  return find_by(&ElementInfo::numpy, code);
}

ElementLayout checked_layout(const std::string& where, ElementType type,
                             std::span<const int64_t> sizes, std::span<const int64_t> strides,
                             int64_t offset, int64_t storage_bytes) {
  if (sizes.size() > Shape::max_rank)
    fail(where, fmt::format("tensor of rank {}; at most {} axes are supported", sizes.size(),
                            Shape::max_rank));
  if (strides.size() != sizes.size())
    fail(where, fmt::format("tensor with {} sizes and {} strides", sizes.size(), strides.size()));
  const auto refuse = [&](const char* what) {
    fail(where, fmt::format("{}: sizes ({}), strides ({}), offset {}, storage of {} bytes", what,
                            fmt::join(sizes, ", "), fmt::join(strides, ", "), offset,
                            storage_bytes));
  };
  ElementLayout layout{.type = type, .shape = {}, .strides = {}, .offset = offset};
  const int64_t available = storage_bytes / size_of(type);
  if (offset < 0) refuse("negative storage offset");
  bool empty = false, overflow = false;
  int64_t numel = 1, last = offset;  // last: the greatest element index that is touched
  for (size_t k = 0; k < sizes.size(); ++k) {
    if (sizes[k] < 0) refuse("negative size");
    if (strides[k] < 0) refuse("negative stride");
    layout.shape.push_back(sizes[k]);
    layout.strides[k] = strides[k];
    if (sizes[k] == 0) {
      empty = true;
      continue;
    }
    int64_t extent = 0;
    overflow |= __builtin_mul_overflow(numel, sizes[k], &numel);
    overflow |= __builtin_mul_overflow(sizes[k] - 1, strides[k], &extent);
    overflow |= __builtin_add_overflow(last, extent, &last);
  }
  int64_t bytes = 0;
  if (overflow || __builtin_mul_overflow(numel, size_of(type), &bytes))
    refuse("sizes and strides overflow 64 bits");
  if (empty ? offset > available : last >= available) refuse("tensor leaves its storage");
  return layout;
}

Tensor copy_elements(ByteSpan storage, const ElementLayout& layout) {
  Tensor out = Tensor::empty(layout.shape, tensor_dtype(layout.type));
  const int64_t count = out.numel();
  if (count == 0) return out;
  std::byte* to = out.raw();
  if (is_dense(layout)) {
    const auto step = static_cast<size_t>(size_of(layout.type));
    const ByteSpan from = storage.subspan(static_cast<size_t>(layout.offset) * step,
                                          static_cast<size_t>(count) * step);
    std::memcpy(to, from.data(), from.size());
  } else {
    gather(storage.data(), layout, to);
  }
  if (layout.type == ElementType::i16) widen_in_place<int16_t>(to, count);
  if (layout.type == ElementType::i8) widen_in_place<int8_t>(to, count);
  if (layout.type == ElementType::boolean)  // any other byte would not be a valid bool
    for (int64_t i = 0; i < count; ++i) to[i] = std::byte{to[i] != std::byte{0}};
  return out;
}

}  // namespace voxlab
