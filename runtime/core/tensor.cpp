#include "runtime/core/tensor.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

std::atomic<uint64_t> next_id{1};

double load(const std::byte* p, DType dtype) {
  switch (dtype) {
    case DType::f64: return *reinterpret_cast<const double*>(p);
    case DType::f32: return *reinterpret_cast<const float*>(p);
    case DType::bf16: return float(*reinterpret_cast<const bfloat16*>(p));
    case DType::f16: return float(*reinterpret_cast<const float16*>(p));
    case DType::i64: return static_cast<double>(*reinterpret_cast<const int64_t*>(p));
    case DType::i32: return *reinterpret_cast<const int32_t*>(p);
    case DType::u8: return *reinterpret_cast<const uint8_t*>(p);
    case DType::boolean: return *reinterpret_cast<const uint8_t*>(p) != 0;
  }
  return 0;
}

void store(std::byte* p, DType dtype, double v) {
  switch (dtype) {
    case DType::f64: *reinterpret_cast<double*>(p) = v; break;
    case DType::f32: *reinterpret_cast<float*>(p) = static_cast<float>(v); break;
    case DType::bf16: *reinterpret_cast<bfloat16*>(p) = bfloat16(static_cast<float>(v)); break;
    case DType::f16: *reinterpret_cast<float16*>(p) = float16(static_cast<float>(v)); break;
    case DType::i64: *reinterpret_cast<int64_t*>(p) = static_cast<int64_t>(v); break;
    case DType::i32: *reinterpret_cast<int32_t*>(p) = static_cast<int32_t>(v); break;
    case DType::u8: *reinterpret_cast<uint8_t*>(p) = static_cast<uint8_t>(v); break;
    case DType::boolean: *reinterpret_cast<uint8_t*>(p) = v != 0; break;
  }
}

// Calls f(offset in elements) for every element of a strided tensor, in row-major order.
template <class F>
void for_each_offset(const Shape& shape, const Strides& strides, F f) {
  const int64_t n = shape.numel();
  if (n == 0) return;
  std::array<int64_t, Shape::max_rank> at{};
  int64_t offset = 0;
  for (int64_t i = 0; i < n; ++i) {
    f(i, offset);
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      const auto k = static_cast<size_t>(axis);
      offset += strides[k];
      if (++at[k] < shape[axis]) break;
      offset -= strides[k] * shape[axis];
      at[k] = 0;
    }
  }
}

}  // namespace

std::string Meta::to_string() const { return std::string(name(dtype)) + " " + shape.to_string(); }

Tensor Tensor::view(std::shared_ptr<Storage> storage, const Meta& meta, const Strides& strides,
                    int64_t offset) {
  Tensor t;
  t.impl_ = std::make_shared<const Impl>(
      Impl{meta, strides, offset, std::move(storage), next_id.fetch_add(1)});
  return t;
}

Tensor Tensor::in_new_storage(const Meta& meta, Device of_storage) {
  int64_t bytes = 0;
  if (__builtin_mul_overflow(meta.numel(), size_of(meta.dtype), &bytes))
    fail("tensor", meta.to_string() + " has too many bytes");
  return view(std::make_shared<Storage>(bytes, of_storage), meta, contiguous_strides(meta.shape), 0);
}

Tensor Tensor::empty(const Meta& meta) { return in_new_storage(meta, meta.device); }
Tensor Tensor::unknown(const Meta& meta) { return in_new_storage(meta, Device::meta); }

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  return empty(Meta{shape, dtype, device});
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  if (is_host(device)) std::memset(t.raw(), 0, static_cast<size_t>(t.bytes()));
  return t;
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  if (!is_host(device)) return t;
  const int64_t n = t.numel(), step = size_of(dtype);
  for (int64_t i = 0; i < n; ++i) store(t.raw() + i * step, dtype, value);
  return t;
}

Tensor Tensor::from_span(const Shape& shape, std::span<const float> values, Device device) {
  if (shape.numel() != static_cast<int64_t>(values.size())) fail("tensor", "size and shape differ");
  Tensor t = empty(shape, DType::f32, device);
  std::copy(values.begin(), values.end(), t.data<float>());
  return t;
}

Tensor Tensor::from_span(const Shape& shape, std::span<const double> values, Device device) {
  if (shape.numel() != static_cast<int64_t>(values.size())) fail("tensor", "size and shape differ");
  Tensor t = empty(shape, DType::f64, device);
  std::copy(values.begin(), values.end(), t.data<double>());
  return t;
}

bool Tensor::contiguous() const {
  int64_t step = 1;
  for (int axis = rank() - 1; axis >= 0; --axis) {
    if (size(axis) != 1 && strides()[static_cast<size_t>(axis)] != step) return false;
    step *= size(axis);
  }
  return true;
}

Tensor Tensor::renewed() const { return view(storage(), meta(), strides(), offset()); }

std::byte* Tensor::raw() const {
  if (!impl_) fail("tensor", "undefined tensor has no data");
  if (!is_host(device())) fail("tensor", "a " + meta().to_string() + " meta tensor has no data");
  if (!known()) fail("tensor", "the values of a " + meta().to_string() + " tensor are read while work is traced on shapes alone");
  return impl_->storage->data() + impl_->offset * size_of(dtype());
}

void Tensor::check_access(DType wanted) const {
  if (!impl_) fail("tensor", "undefined tensor has no data");
  if (dtype() != wanted)
    fail("tensor", "read as " + std::string(name(wanted)) + ", but it is " + meta().to_string());
}

double Tensor::item() const {
  if (numel() != 1) fail("tensor", "item() of " + meta().to_string());
  return load(raw(), dtype());
}

std::vector<double> Tensor::to_vector() const {
  std::vector<double> out(static_cast<size_t>(numel()));
  const std::byte* base = raw();
  const int64_t step = size_of(dtype());
  for_each_offset(shape(), strides(), [&](int64_t i, int64_t offset) {
    out[static_cast<size_t>(i)] = load(base + offset * step, dtype());
  });
  return out;
}

void Tensor::copy_from(const Tensor& source) const {
  if (!(shape() == source.shape()))
    fail("tensor", "copy of " + source.meta().to_string() + " into " + meta().to_string());
  if (!is_host(device())) return;
  if (dtype() == source.dtype() && contiguous() && source.contiguous()) {
    std::memmove(raw(), source.raw(), static_cast<size_t>(bytes()));
    return;
  }
  const std::byte* from = source.raw();
  std::byte* to = raw();
  const int64_t from_step = size_of(source.dtype()), to_step = size_of(dtype());
  if (contiguous()) {
    for_each_offset(shape(), source.strides(), [&](int64_t i, int64_t offset) {
      store(to + i * to_step, dtype(), load(from + offset * from_step, source.dtype()));
    });
    return;
  }
  const Tensor plain = source.contiguous() ? source : source.clone();
  const std::byte* packed = plain.raw();
  for_each_offset(shape(), strides(), [&](int64_t i, int64_t offset) {
    store(to + offset * to_step, dtype(), load(packed + i * from_step, source.dtype()));
  });
}

Tensor Tensor::to(DType wanted) const {
  if (dtype() == wanted) return *this;
  Tensor out = empty(shape(), wanted, device());
  out.copy_from(*this);
  return out;
}

Tensor Tensor::to(Device wanted) const {
  if (device() == wanted) return *this;
  Tensor out = empty(shape(), dtype(), wanted);
  if (is_host(wanted)) out.copy_from(*this);
  return out;
}

Metas metas_of(std::span<const Tensor> tensors) {
  Metas metas;
  for (const Tensor& t : tensors) metas.push_back(t.meta());
  return metas;
}

Tensor Tensor::clone() const {
  Tensor out = empty(shape(), dtype(), device());
  out.copy_from(*this);
  return out;
}

}  // namespace voxlab
