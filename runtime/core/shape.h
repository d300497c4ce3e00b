// Shape: sizes of up to six axes. Logical shapes are channels last: (N, D, H, W, C), (N, L, C).
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace voxlab {

class Shape {
 public:
  static constexpr int max_rank = 6;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes);
  explicit Shape(std::span<const int64_t> sizes);

  int rank() const { return rank_; }
  // Negative axes count from the end. Error when out of range.
  int64_t operator[](int axis) const { return sizes_[static_cast<size_t>(index(axis))]; }
  void set(int axis, int64_t size);
  void push_back(int64_t size);
  int64_t numel() const;  // product; Error when it leaves int64

  const int64_t* begin() const { return sizes_.data(); }
  const int64_t* end() const { return sizes_.data() + rank_; }
  bool operator==(const Shape& other) const;
  std::string to_string() const;  // "(2, 3)"

  // Axis counted from the front, in [0, rank).
  int index(int axis) const;

 private:
  std::array<int64_t, max_rank> sizes_{};
  int rank_ = 0;
};

using Strides = std::array<int64_t, Shape::max_rank>;  // in elements; entries past the rank are 0

Strides contiguous_strides(const Shape& shape);

// NumPy broadcasting of two shapes; Error naming `where` when they do not fit.
Shape broadcast_shapes(std::string_view where, const Shape& a, const Shape& b);

}  // namespace voxlab
