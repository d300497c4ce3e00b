#include "runtime/core/tensor.h"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

using Values = std::vector<double>;

// 0, 1, 2, ... in row-major order.
Tensor counted(const Shape& shape, DType dtype = DType::f32, Device device = Device::cpu) {
  Values values(static_cast<size_t>(shape.numel()));
  std::iota(values.begin(), values.end(), 0);
  return Tensor::from_span(shape, std::span<const double>(values), device).to(dtype);
}

// Rows and columns of a matrix changed over, without a copy.
Tensor transposed(const Tensor& t) {
  return Tensor::view(t.storage(), {{t.size(1), t.size(0)}, t.dtype(), t.device()},
                      {t.strides()[1], t.strides()[0]}, t.offset());
}

std::string message_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Tensors, ViewsShareStorage) {
  const Tensor t = counted({2, 3});
  const Tensor v = transposed(t);
  EXPECT_TRUE(t.contiguous());
  EXPECT_FALSE(v.contiguous());
  EXPECT_EQ(v.to_vector(), (Values{0, 3, 1, 4, 2, 5}));
  t.data<float>()[1] = 10;
  EXPECT_EQ(v.to_vector()[2], 10);
  const Tensor row = Tensor::view(t.storage(), {{3}, DType::f32, Device::cpu}, {1}, 3);
  EXPECT_EQ(row.to_vector(), (Values{3, 4, 5}));
  EXPECT_EQ(row.data<float>(), t.data<float>() + 3);
}

TEST(Tensors, AxesOfSizeOneHaveAnyStride) {
  const Tensor t = counted({4});
  const Tensor v = Tensor::view(t.storage(), {{1, 4, 1}, DType::f32, Device::cpu}, {99, 1, 77}, 0);
  EXPECT_TRUE(v.contiguous());
}

TEST(Tensors, CloneAndCopyOfStridedTensors) {
  const Tensor t = counted({2, 3});
  const Tensor copy = transposed(t).clone();
  EXPECT_TRUE(copy.contiguous());
  EXPECT_EQ(copy.to_vector(), (Values{0, 3, 1, 4, 2, 5}));
  t.data<float>()[0] = 7;
  EXPECT_EQ(copy.to_vector()[0], 0);

  const Tensor target = Tensor::zeros({3, 2}, DType::f64);
  transposed(target).copy_from(counted({2, 3}));  // strided target
  EXPECT_EQ(target.to_vector(), (Values{0, 3, 1, 4, 2, 5}));
  transposed(target).copy_from(
      transposed(counted({3, 2}, DType::i32)));  // both strided, converting
  EXPECT_EQ(target.to_vector(), (Values{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(message_of([&] { target.copy_from(t); }), "tensor: copy of f32 (2, 3) into f64 (3, 2)");
}

TEST(Tensors, ConversionRoundsAsTheTypeDoes) {
  const Values values{1.0 + 0x1p-8, 1.0 + 3 * 0x1p-8, -2.75, 300.0};
  const Tensor t = Tensor::from_span({4}, std::span<const double>(values));
  // bf16 has 7 fraction bits: both ties go to the even neighbour. f16 has 10.
  EXPECT_EQ(t.to(DType::bf16).to_vector(), (Values{1.0, 1.0 + 4 * 0x1p-8, -2.75, 300.0}));
  EXPECT_EQ(t.to(DType::f16).to_vector(), values);
  EXPECT_EQ(t.to(DType::i32).to_vector(), (Values{1, 1, -2, 300}));
  EXPECT_EQ(t.to(DType::boolean).to_vector(), (Values{1, 1, 1, 1}));
  EXPECT_EQ(t.to(DType::f64).id(), t.id()) << "nothing to convert: the same tensor";
}

TEST(Tensors, OtherDeviceGetsACopy) {
  const Tensor t = counted({3});
  const Tensor ref = t.to(Device::ref);
  EXPECT_EQ(ref.device(), Device::ref);
  EXPECT_NE(ref.raw(), t.raw());
  EXPECT_EQ(ref.to_vector(), t.to_vector());
  const Tensor meta = t.to(Device::meta);
  EXPECT_EQ(meta.shape(), t.shape());
}

TEST(Tensors, FactoriesFill) {
  EXPECT_EQ(Tensor::zeros({2, 2}, DType::bf16).to_vector(), Values(4));
  for (const DType dtype :
       {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i64, DType::i32, DType::u8})
    EXPECT_EQ(Tensor::full({3}, 5, dtype).to_vector(), Values(3, 5)) << name(dtype);
  EXPECT_EQ(Tensor::full({}, 2.5, DType::f32).item(), 2.5);
  EXPECT_THROW(Tensor::from_span({3}, std::span<const double>(Values{1, 2})), Error);
}

TEST(Tensors, IdentityIsOfTheValueNotTheHandle) {
  const Tensor t = counted({2});
  const Tensor same =
      t;  // NOLINT(performance-unnecessary-copy-initialization): the copy is the point
  EXPECT_EQ(same.id(), t.id());
  EXPECT_NE(counted({2}).id(), t.id());
  const Tensor renewed = t.renewed();
  EXPECT_NE(renewed.id(), t.id());
  EXPECT_EQ(renewed.raw(), t.raw());
  EXPECT_EQ(Tensor().id(), 0U);
}

TEST(Tensors, WrongAccessSaysWhatIsThere) {
  const Tensor t = counted({2, 3});
  EXPECT_EQ(message_of([&] { t.data<double>(); }), "tensor: read as f64, but it is f32 (2, 3)");
  EXPECT_EQ(message_of([&] { t.item(); }), "tensor: item() of f32 (2, 3)");
  const Tensor meta = Tensor::empty({2}, DType::f32, Device::meta);
  EXPECT_EQ(message_of([&] { meta.raw(); }), "tensor: a f32 (2) meta tensor has no data");
  EXPECT_EQ(message_of([] { Tensor().raw(); }), "tensor: undefined tensor has no data");
}

TEST(Tensors, EmptyAxesAreFine) {
  const Tensor t = Tensor::zeros({3, 0, 2}, DType::f32);
  EXPECT_EQ(t.numel(), 0);
  EXPECT_TRUE(t.to_vector().empty());
  EXPECT_EQ(t.clone().shape(), t.shape());
}

}  // namespace
}  // namespace voxlab
