// Generic tests over every sample of every op: gradients against finite differences in f64, refusals,
// and meta shapes against real ones. A new op is tested by its samples; nothing is added here.
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/autograd/tape.h"
#include "runtime/ops/all.h"
#include "tests/support/draw.h"

namespace voxlab {
namespace {

using test::draw;

class OpSamples : public testing::TestWithParam<const OpRecord*> {};

std::string op_name(const testing::TestParamInfo<const OpRecord*>& info) {
  return std::string(info.param->name);
}

// sum over outputs of <output, cotangent>, in f64.
double weighted(const OpRecord& op, const Sample& sample, const Tensors& in, const Tensors& cotangents) {
  double total = 0;
  const Tensors out = call(op, sample.attrs, in);
  for (size_t i = 0; i < out.size(); ++i) {
    if (!cotangents[i]) continue;
    const auto y = out[i].to_vector(), c = cotangents[i].to_vector();
    for (size_t j = 0; j < y.size(); ++j) total += y[j] * c[j];
  }
  return total;
}

TEST_P(OpSamples, GradientMatchesFiniteDifferences) {
  const OpRecord& op = *GetParam();
  if (op.backward == nullptr && op.decompose == nullptr) return;  // nothing to differentiate
  for (const Sample& sample : op.samples()) {
    if (!sample.error.empty()) continue;
    SCOPED_TRACE(sample.label);
    const Tensors in = draw(sample, DType::f64, Device::ref, 11);
    Tape tape;
    for (size_t i = 0; i < in.size(); ++i)
      if (in[i] && sample.inputs[i].grad && is_floating(in[i].dtype())) tape.watch(in[i]);
    Tensors out;
    {
      const auto recording = tape.recording();
      out = call(op, sample.attrs, in);
    }
    Tensors cotangents, reached, reached_cotangents;
    for (size_t i = 0; i < out.size(); ++i) {
      cotangents.push_back(is_floating(out[i].dtype())
                               ? draw({.shape = out[i].shape()}, DType::f64, Device::ref, 77 + i)
                               : Tensor());
      if (!cotangents[i] || !tape.watches(out[i])) continue;
      reached.push_back(out[i]);
      reached_cotangents.push_back(cotangents[i]);
    }
    if (reached.empty()) continue;
    const Tensors gradients = tape.gradient(reached, reached_cotangents, in);
    for (size_t i = 0; i < in.size(); ++i) {
      if (!in[i] || !sample.inputs[i].grad || !is_floating(in[i].dtype())) continue;
      const std::vector<double> analytic =
          gradients[i] ? gradients[i].to_vector() : std::vector<double>(static_cast<size_t>(in[i].numel()));
      double largest = 1e-3;
      for (double g : analytic) largest = std::fmax(largest, std::fabs(g));
      auto* data = in[i].data<double>();
      const int64_t stride = std::max<int64_t>(1, in[i].numel() / 60);  // at most about 60 elements
      // The storage of a drawn tensor is contiguous: walk memory and translate to logical positions.
      std::vector<double> marks(static_cast<size_t>(in[i].numel()));
      for (size_t k = 0; k < marks.size(); ++k) marks[k] = data[k];
      for (int64_t k = 0; k < in[i].numel(); k += stride) {
        const double at = data[k], step = 1e-5;
        data[k] = std::nan("");
        const auto logical = in[i].to_vector();
        size_t position = 0;
        while (!std::isnan(logical[position])) ++position;
        data[k] = at + step;
        const double up = weighted(op, sample, in, cotangents);
        data[k] = at - step;
        const double down = weighted(op, sample, in, cotangents);
        data[k] = at;
        EXPECT_NEAR(analytic[position], (up - down) / (2 * step), 2e-7 * largest * sample.tolerance)
            << "input " << i << " element " << position;
      }
    }
  }
}

TEST_P(OpSamples, RefusesBadInput) {
  const OpRecord& op = *GetParam();
  for (const Sample& sample : op.samples()) {
    if (sample.error.empty()) continue;
    SCOPED_TRACE(sample.label);
    for (Device device : {Device::ref, Device::cpu, Device::meta}) {
      try {
        call(op, sample.attrs, draw(sample, DType::f32, device, 3));
        ADD_FAILURE() << "accepted";
      } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find(sample.error), std::string::npos) << e.what();
      }
    }
  }
}

TEST_P(OpSamples, MetaGivesTheRealShapes) {
  const OpRecord& op = *GetParam();
  for (const Sample& sample : op.samples()) {
    if (!sample.error.empty()) continue;
    SCOPED_TRACE(sample.label);
    for (DType dtype : {DType::f32, DType::f64}) {
      const Tensors real = call(op, sample.attrs, draw(sample, dtype, Device::ref, 5));
      const Tensors meta = call(op, sample.attrs, draw(sample, dtype, Device::meta, 5));
      ASSERT_EQ(real.size(), meta.size());
      for (size_t i = 0; i < real.size(); ++i) {
        EXPECT_EQ(real[i].shape(), meta[i].shape());
        EXPECT_EQ(real[i].dtype(), meta[i].dtype());
        EXPECT_EQ(meta[i].device(), Device::meta);
      }
    }
  }
}

TEST_P(OpSamples, HasSamples) { EXPECT_FALSE(GetParam()->samples().empty()); }

INSTANTIATE_TEST_SUITE_P(AllOps, OpSamples, testing::ValuesIn(all_ops()), op_name);

}  // namespace
}  // namespace voxlab
