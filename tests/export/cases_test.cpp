// Writes the cases that onnxruntime_test.py runs: every sample of every exported op and small
// networks, each as NAME.onnx and NAME.safetensors with the inputs and our output.
#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <cstdlib>
#include <set>

#include "experiments/config/bind.h"
#include "experiments/config/parse.h"
#include "experiments/export/export.h"
#include "experiments/export/onnx_ops.h"
#include "runtime/core/rng.h"
#include "runtime/io/safetensors.h"
#include "runtime/ops/call.h"
#include "tests/support/draw.h"

namespace voxlab {
namespace {

std::filesystem::path folder() { return std::getenv("VOXLAB_EXPORT_CASES"); }

void write_pair(std::string name, const OnnxModel& model, const Tensors& in, const Tensor& out) {
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  NamedTensors tensors;
  for (size_t i = 0; i < model.inputs.size(); ++i) tensors.add(model.inputs[i].name, in[i].clone());
  tensors.add(model.outputs[0].name, out.clone());
  write_onnx(folder() / (name + ".onnx"), model);
  write_safetensors(folder() / (name + ".safetensors"), tensors);
}

// With every tensor an input of the graph, or all but the first in the file.
void write_sample(const OpRecord& op, const Sample& sample, bool constants) {
  const Tensors drawn = test::draw(sample, DType::f32, Device::cpu, 7);
  Tensors in;
  OnnxOptions options{
      .name = std::string(op.name), .inputs = {}, .outputs = {"y"}, .channels_first = false};
  for (const Tensor& t : drawn) {
    if (!t || (constants && !in.empty())) continue;
    options.inputs.push_back("x" + std::to_string(in.size()));
    in.push_back(t);
  }
  const auto body = [&](const Tensors& inputs) {
    Tensors all = drawn;
    for (size_t i = 0, next = 0; i < all.size() && next < inputs.size(); ++i)
      if (all[i]) all[i] = inputs[next++];
    const Tensor out = call(op, sample.attrs, all)[0];
    return Tensors{out.dtype() == DType::bf16 ? cast(out, DType::f32) : out};  // NumPy has no bf16
  };
  const Trace steps = trace(metas_of(in), body);
  const std::string name =
      std::string(op.name) + "." + sample.label + (constants ? ".constants" : ".inputs");
  write_pair(name, onnx_model(steps, std::move(options)), in, body(in)[0]);
}

TEST(ExportCases, DISABLED_WriteOps) {
  ExportedOps::for_each([]<class Op>() {
    for (const Sample& sample : Op::samples()) {
      if (!sample.error.empty()) continue;
      write_sample(record_of<Op>(), sample, false);
      if (sample.inputs.size() > 1) write_sample(record_of<Op>(), sample, true);
    }
  });
}

// Starting values hide what stands behind them: a gate is zero, a weight makes values smaller from
// layer to layer. Weights are scaled to variance 1 / fan-in, which keeps the size of what passes,
// and all else is moved off its value.
void shake(Network& network) {
  uint32_t stream = 0;
  for (const nn::ParameterPtr& p : network.parameters.all()) {
    const Philox random(3, stream++);
    const std::span values(p->value.data<float>(), static_cast<size_t>(p->value.numel()));
    double squares = 0;
    for (float v : values) squares += static_cast<double>(v) * v;
    if (p->name.ends_with("weight") && p->value.rank() > 1 && squares > 0) {
      const auto factor =
          static_cast<float>(std::sqrt(static_cast<double>(p->value.size(-1)) / squares));
      for (float& v : values) v *= factor;
    } else {
      for (size_t i = 0; i < values.size(); ++i)
        values[i] += 0.4F * (static_cast<float>(random.uniform(i)) - 0.5F);
    }
  }
}

// Every small/*.toml of a network that there is.
TEST(ExportCases, DISABLED_WriteNetworks) {
  std::set<std::string> missing;
  for (const std::string& net : net_names()) missing.insert(net);
  const std::set<std::string> known = missing;
  for (const auto& entry : std::filesystem::directory_iterator(VOXLAB_TEST_DATA "/export/small")) {
    const ConfigNode node = load_config(entry.path());
    std::string net, variant;
    read_value(*node.find("net"), "net", net);
    if (const ConfigNode* found = node.find("variant")) read_value(*found, "variant", variant);
    if (!known.contains(net)) continue;
    missing.erase(net);
    NetConfig config = net_preset(net, variant);
    read_value(node, "", config);
    Network network = make_network(config, {});
    shake(network);
    const ExportedNetwork exported = export_network(network, net);
    write_pair("net " + entry.path().stem().string(), exported.model, {exported.x}, exported.y);
  }
  EXPECT_TRUE(missing.empty()) << *missing.begin() << " has no configuration in tests/export/small";
}

}  // namespace
}  // namespace voxlab
