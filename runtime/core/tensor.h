// Tensor: a handle on shape, dtype, device and strided storage. Copies share; views share storage.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "runtime/core/allocator.h"
#include "runtime/core/device.h"
#include "runtime/core/dtype.h"
#include "runtime/core/shape.h"

namespace voxlab {

// What an op sees before anything is computed.
struct Meta {
  Shape shape;
  DType dtype = DType::f32;
  Device device = Device::cpu;
  bool operator==(const Meta&) const = default;
  int64_t numel() const { return shape.numel(); }
  int64_t bytes() const { return shape.numel() * size_of(dtype); }
  std::string to_string() const;  // "f32 (1, 3, 4)"
};

using Metas = std::vector<Meta>;
using MetaSpan = std::span<const Meta>;

class Tensor {
 public:
  Tensor() = default;  // undefined: an absent optional input
  static Tensor empty(const Meta& meta);
  static Tensor empty(const Shape& shape, DType dtype, Device device = Device::cpu);
  // A value that is not known yet: shape, dtype and device without memory. So is what ops make of it: nothing runs.
  static Tensor unknown(const Meta& meta);
  static Tensor zeros(const Shape& shape, DType dtype, Device device = Device::cpu);
  static Tensor full(const Shape& shape, double value, DType dtype, Device device = Device::cpu);
  static Tensor from_span(const Shape& shape, std::span<const float> values, Device device = Device::cpu);
  static Tensor from_span(const Shape& shape, std::span<const double> values, Device device = Device::cpu);
  // A view of `storage`: the caller guarantees that shape and strides stay inside it.
  static Tensor view(std::shared_ptr<Storage> storage, const Meta& meta, const Strides& strides,
                     int64_t offset);

  explicit operator bool() const { return impl_ != nullptr; }
  const Meta& meta() const { return impl_->meta; }
  const Shape& shape() const { return impl_->meta.shape; }
  DType dtype() const { return impl_->meta.dtype; }
  Device device() const { return impl_->meta.device; }
  int rank() const { return shape().rank(); }
  int64_t size(int axis) const { return shape()[axis]; }
  int64_t numel() const { return shape().numel(); }
  int64_t bytes() const { return impl_->meta.bytes(); }
  const Strides& strides() const { return impl_->strides; }
  int64_t offset() const { return impl_->offset; }
  bool contiguous() const;
  bool known() const { return storage()->device() == device(); }  // has memory, or is on meta, where nothing has
  const std::shared_ptr<Storage>& storage() const { return impl_->storage; }

  // A value's identity: a copy of the handle keeps it, every op's output gets a new one.
  uint64_t id() const { return impl_ ? impl_->id : 0; }
  // Same storage under a new identity; used by ops that change a value in place.
  Tensor renewed() const;

  // First element. Error on meta, and when the value is not known.
  std::byte* raw() const;
  template <class T>
  T* data() const {
    check_access(dtype_of<T>);
    return reinterpret_cast<T*>(raw());
  }
  // One-element tensor of any floating or integer dtype, as a double.
  double item() const;
  // All elements in row-major order, converted; for reports and tests.
  std::vector<double> to_vector() const;

  // Copies between host devices share nothing. Converts the dtype; strided input is fine.
  Tensor to(DType dtype) const;
  Tensor to(Device device) const;
  Tensor clone() const;  // contiguous copy
  void copy_from(const Tensor& source) const;  // same shape; converts the dtype

 private:
  struct Impl {
    Meta meta;
    Strides strides{};
    int64_t offset = 0;
    std::shared_ptr<Storage> storage;
    uint64_t id = 0;
  };
  static Tensor in_new_storage(const Meta& meta, Device of_storage);
  void check_access(DType wanted) const;
  std::shared_ptr<const Impl> impl_;
};

using Tensors = std::vector<Tensor>;
Metas metas_of(std::span<const Tensor> tensors);  // all defined

}  // namespace voxlab
