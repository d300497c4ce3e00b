// Non-zero mask, box, crop and paste.
#include "experiments/data/crop.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/core/parallel.h"

namespace voxlab {
namespace {

template <class T>
void mark_nonzero(const Tensor& image, uint8_t* mask) {
  const T* values = image.data<T>();
  const int64_t channels = image.size(3);
  parallel_for(image.numel() / channels, 1 << 16, [&](int64_t begin, int64_t end) {
    for (int64_t v = begin; v < end; ++v) {
      const T* voxel = values + v * channels;
      mask[v] = std::any_of(voxel, voxel + channels, [](T value) { return value != 0; });
    }
  });
}

// Every zero that the border reaches becomes 2; what stays 0 is a hole.
void flood_from_border(uint8_t* mask, const Size3& n) {
  constexpr uint8_t reached = 2;
  std::vector<int64_t> stack;
  const auto visit = [&](int64_t v) {
    if (mask[v] != 0) return;
    mask[v] = reached;
    stack.push_back(v);
  };
  const int64_t row = n[2], plane = n[1] * n[2];
  for (int64_t z = 0; z < n[0]; ++z) {
    for (int64_t y = 0; y < n[1]; ++y) {
      const bool face = z == 0 || z == n[0] - 1 || y == 0 || y == n[1] - 1;
      const int64_t first = z * plane + y * row;
      if (face) {
        for (int64_t x = 0; x < n[2]; ++x) visit(first + x);
      } else {
        visit(first);
        visit(first + n[2] - 1);
      }
    }
  }
  while (!stack.empty()) {
    const int64_t v = stack.back();
    stack.pop_back();
    const int64_t x = v % row, y = v / row % n[1], z = v / plane;
    if (x > 0) visit(v - 1);
    if (x + 1 < n[2]) visit(v + 1);
    if (y > 0) visit(v - row);
    if (y + 1 < n[1]) visit(v + row);
    if (z > 0) visit(v - plane);
    if (z + 1 < n[0]) visit(v + plane);
  }
}

// Calls copy(offset in the full grid, offset in the box) for each row of the box, in voxels.
template <class Copy>
void for_each_row(const Box3& box, const Size3& full, Copy copy) {
  for (int64_t z = 0; z < box.size[0]; ++z)
    for (int64_t y = 0; y < box.size[1]; ++y)
      copy(((box.begin[0] + z) * full[1] + box.begin[1] + y) * full[2] + box.begin[2],
           (z * box.size[1] + y) * box.size[2]);
}

void check_box(const char* where, const Box3& box, const Size3& size) {
  for (size_t a = 0; a < 3; ++a)
    if (box.begin[a] < 0 || box.size[a] < 1 || box.begin[a] > size[a] - box.size[a])
      fail(where, fmt::format("box [{}, {}) leaves axis {} of size {}", box.begin[a],
                              box.begin[a] + box.size[a], "zyx"[a], size[a]));
}

Shape with_size(const Tensor& like, const Size3& size) {
  Shape shape{size[0], size[1], size[2]};
  if (like.rank() == 4) shape.push_back(like.size(3));
  return shape;
}

}  // namespace

Tensor nonzero_mask(const Tensor& image) {
  if (image.rank() != 4)
    fail("nonzero_mask", "expected (z, y, x, C), got " + image.shape().to_string());
  const Size3 size{image.size(0), image.size(1), image.size(2)};
  const Tensor dense = image.contiguous() ? image : image.clone();
  Tensor mask = Tensor::empty({size[0], size[1], size[2]}, DType::u8);
  auto* bits = mask.data<uint8_t>();
  if (dense.dtype() == DType::f64) {
    mark_nonzero<double>(dense, bits);
  } else {
    mark_nonzero<float>(dense, bits);
  }
  flood_from_border(bits, size);
  for (int64_t v = 0; v < mask.numel(); ++v) bits[v] = bits[v] != 2;
  return mask;
}

Box3 bounding_box(const Tensor& mask) {
  const Size3 n{mask.size(0), mask.size(1), mask.size(2)};
  const auto* bits = mask.data<uint8_t>();
  Size3 low = n, high{-1, -1, -1};
  for (int64_t z = 0, v = 0; z < n[0]; ++z) {
    for (int64_t y = 0; y < n[1]; ++y, v += n[2]) {
      const uint8_t* row = bits + v;
      const auto* first = std::find_if(row, row + n[2], [](uint8_t b) { return b != 0; });
      if (first == row + n[2]) continue;
      int64_t last = n[2] - 1;
      while (row[last] == 0) --last;
      low = {std::min(low[0], z), std::min(low[1], y), std::min<int64_t>(low[2], first - row)};
      high = {std::max(high[0], z), std::max(high[1], y), std::max(high[2], last)};
    }
  }
  if (high[0] < 0) return {.begin = {0, 0, 0}, .size = n};
  return {.begin = low, .size = {high[0] - low[0] + 1, high[1] - low[1] + 1, high[2] - low[2] + 1}};
}

Tensor crop(const Tensor& tensor, const Box3& box) {
  const Size3 full{tensor.size(0), tensor.size(1), tensor.size(2)};
  check_box("crop", box, full);
  const Tensor from = tensor.contiguous() ? tensor : tensor.clone();
  Tensor to = Tensor::empty(with_size(tensor, box.size), tensor.dtype());
  const int64_t bytes = size_of(tensor.dtype()) * (tensor.rank() == 4 ? tensor.size(3) : 1);
  for_each_row(box, full, [&](int64_t in_full, int64_t in_box) {
    std::memcpy(to.raw() + in_box * bytes, from.raw() + in_full * bytes,
                static_cast<size_t>(box.size[2] * bytes));
  });
  return to;
}

Tensor paste(const Tensor& part, const Box3& box, const Size3& size, double fill) {
  check_box("paste", box, size);
  if (part.size(0) != box.size[0] || part.size(1) != box.size[1] || part.size(2) != box.size[2])
    fail("paste", fmt::format("expected a part of size ({}, {}, {}), got {}", box.size[0],
                              box.size[1], box.size[2], part.shape().to_string()));
  const Tensor from = part.contiguous() ? part : part.clone();
  Tensor to = Tensor::full(with_size(part, size), fill, part.dtype());
  const int64_t bytes = size_of(part.dtype()) * (part.rank() == 4 ? part.size(3) : 1);
  for_each_row(box, size, [&](int64_t in_full, int64_t in_box) {
    std::memcpy(to.raw() + in_full * bytes, from.raw() + in_box * bytes,
                static_cast<size_t>(box.size[2] * bytes));
  });
  return to;
}

Tensor mark_outside(const Tensor& labels, const Tensor& mask) {
  const auto* inside = mask.data<uint8_t>();
  Tensor marked = labels ? labels.clone() : Tensor::zeros(mask.shape(), DType::i32);
  if (marked.shape() != mask.shape())
    fail("mark_outside",
         "labels are " + marked.shape().to_string() + ", the mask is " + mask.shape().to_string());
  auto* values = marked.data<int32_t>();
  for (int64_t v = 0; v < marked.numel(); ++v)
    if (values[v] == 0 && inside[v] == 0) values[v] = outside_label;
  return marked;
}

}  // namespace voxlab
