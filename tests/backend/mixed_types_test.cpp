// Kernels that take bf16 in the places of f32: what is read gives the same bits as the same values in f32, what is written is
// rounded once.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "runtime/backend/cpu/isa.h"
#include "runtime/ops/all.h"
#include "runtime/ops/call.h"
#include "runtime/ops/kernel.h"
#include "runtime/ops/norm_activation.h"
#include "tests/support/draw.h"

namespace voxlab {
namespace {

TensorDesc desc_of(const Tensor& t) {
  if (!t) return {.meta = {.shape = Shape{0}}, .present = false};
  return {.meta = t.meta(), .strides = contiguous_strides(t.shape())};
}

// The op's outputs, `results` of them as `dtype`; empty where no kernel of its own takes these types.
Tensors run(const OpRecord& op, const Sample& sample, const Tensors& in, const std::vector<size_t>& results, DType dtype) {
  std::vector<TensorDesc> in_descs, out_descs;
  std::vector<std::byte*> from, to;
  for (const Tensor& t : in) {
    in_descs.push_back(desc_of(t));
    from.push_back(t ? t.raw() : nullptr);
  }
  Tensors wide = in;
  for (Tensor& t : wide)
    if (t && t.dtype() == DType::bf16) t = t.to(DType::f32);
  Tensors out = call(op, sample.attrs, wide);  // for the shapes
  for (const size_t i : results) out[i] = Tensor::empty({out[i].shape(), dtype, Device::cpu});
  for (const Tensor& t : out) {
    out_descs.push_back(desc_of(t));
    to.push_back(t.raw());
  }
  const Kernel kernel = find_kernel(Device::cpu, op)(sample.attrs.get(), in_descs, out_descs);
  EXPECT_TRUE(kernel.run != nullptr && kernel.narrows);
  if (kernel.run == nullptr) return {};
  EXPECT_EQ(kernel.workspace, 0);
  kernel.run(from, to, nullptr);
  return out;
}

// Inputs `typed` and the results of every sample, together and one by one.
void check(const OpRecord& op, const std::vector<size_t>& typed, const std::vector<size_t>& results = {0}) {
  for (const Sample& sample : op.samples()) {
    if (!sample.error.empty()) continue;
    SCOPED_TRACE(std::string(op.name) + ", " + sample.label);
    Tensors in = test::draw(sample, DType::f32, Device::cpu, 5);
    for (const size_t i : typed)
      if (i < in.size() && in[i]) in[i] = in[i].to(DType::bf16).to(DType::f32);
    for (const cpu::Isa isa : cpu::available_isas()) {
      SCOPED_TRACE(cpu::name(isa));
      const cpu::IsaScope scope(isa);
      const Tensors expected = run(op, sample, in, results, DType::f32);
      for (size_t mask = 1; mask < size_t{2} << typed.size(); ++mask) {
        Tensors some = in;
        for (size_t k = 0; k < typed.size(); ++k)
          if ((mask >> k & 1) != 0 && typed[k] < some.size() && some[typed[k]]) some[typed[k]] = some[typed[k]].to(DType::bf16);
        const bool narrow = (mask >> typed.size() & 1) != 0;
        const Tensors got = run(op, sample, some, results, narrow ? DType::bf16 : DType::f32);
        ASSERT_EQ(got.size(), expected.size());
        for (size_t i = 0; i < got.size(); ++i) {
          const bool result = std::find(results.begin(), results.end(), i) != results.end();
          const Tensor want = result && narrow ? expected[i].to(DType::bf16) : expected[i];
          EXPECT_EQ(got[i].to_vector(), want.to_vector()) << "output " << i << ", types " << mask;
        }
      }
    }
  }
}

TEST(MixedTypes, Norms) {
  check(record_of<GroupNorm>(), {0});
  check(record_of<BatchNorm>(), {0});
  check(record_of<NormActivation>(), {0, 3});
  check(record_of<NormSum>(), {0, 3});
}

TEST(MixedTypes, NormsBehindADepthwiseConvolution) { check(record_of<ConvNormGelu>(), {0}); }

TEST(MixedTypes, GradientsOfNorms) {
  check(record_of<GroupNormGrad>(), {0, 1});
  check(record_of<BatchNormGrad>(), {0, 1});
  check(record_of<NormActivationGrad>(), {0, 1});
  check(record_of<NormSumGrad>(), {0, 1, 6}, {0, 3});
}

}  // namespace
}  // namespace voxlab
