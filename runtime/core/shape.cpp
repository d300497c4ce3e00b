#include "runtime/core/shape.h"

#include <algorithm>

#include "runtime/core/error.h"

namespace voxlab {

Shape::Shape(std::initializer_list<int64_t> sizes)
    : Shape(std::span<const int64_t>(sizes.begin(), sizes.size())) {}

Shape::Shape(std::span<const int64_t> sizes) {
  for (int64_t size : sizes) push_back(size);
}

void Shape::push_back(int64_t size) {
  if (rank_ == max_rank) fail("shape", "more than 6 axes");
  if (size < 0) fail("shape", "negative size " + std::to_string(size));
  sizes_[static_cast<size_t>(rank_++)] = size;
}

void Shape::set(int axis, int64_t size) {
  if (size < 0) fail("shape", "negative size " + std::to_string(size));
  sizes_[static_cast<size_t>(index(axis))] = size;
}

int Shape::index(int axis) const {
  const int from_front = axis < 0 ? axis + rank_ : axis;
  if (from_front < 0 || from_front >= rank_)
    fail("shape", "axis " + std::to_string(axis) + " is outside " + to_string());
  return from_front;
}

int64_t Shape::numel() const {
  int64_t product = 1;
  for (int64_t size : *this)
    if (__builtin_mul_overflow(product, size, &product)) fail("shape", to_string() + " has too many elements");
  return product;
}

bool Shape::operator==(const Shape& other) const {
  return std::equal(begin(), end(), other.begin(), other.end());
}

std::string Shape::to_string() const {
  std::string text = "(";
  for (int i = 0; i < rank_; ++i) {
    if (i) text += ", ";
    text += std::to_string(sizes_[static_cast<size_t>(i)]);
  }
  return text + ")";
}

Strides contiguous_strides(const Shape& shape) {
  Strides strides{};
  int64_t step = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    strides[static_cast<size_t>(axis)] = step;
    step *= shape[axis];
  }
  return strides;
}

Shape broadcast_shapes(std::string_view where, const Shape& a, const Shape& b) {
  const int rank = std::max(a.rank(), b.rank());
  Shape out;
  for (int i = 0; i < rank; ++i) {
    const int ia = i - (rank - a.rank());
    const int ib = i - (rank - b.rank());
    const int64_t sa = ia < 0 ? 1 : a[ia];
    const int64_t sb = ib < 0 ? 1 : b[ib];
    if (sa != sb && sa != 1 && sb != 1)
      fail(where, "shapes " + a.to_string() + " and " + b.to_string() + " do not broadcast");
    out.push_back(sa == 1 ? sb : sa);
  }
  return out;
}

}  // namespace voxlab
