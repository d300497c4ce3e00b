// The ONNX file of small functions, decoded and compared with what it must say; what is refused;
// and that every released network has an ONNX form. That ONNX Runtime computes the same numbers is
// onnxruntime_test.py's part.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "experiments/export/export.h"
#include "experiments/export/onnx_ops.h"
#include "runtime/core/scope.h"
#include "tests/export/protobuf_reader.h"
#include "tests/support/temporary_folder.h"

namespace voxlab {
namespace {

using test::ProtobufReader;
using Strings = std::vector<std::string>;

Tensor counted(const Shape& shape) {  // 0, 1, 2 ...
  Tensor t = Tensor::empty(shape, DType::f32);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(i);
  return t;
}

std::string read_file(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

OnnxModel model_of(const Tensor& x, const std::function<Tensor(const Tensor&)>& f) {
  return onnx_model(trace(Metas{x.meta()}, [&](const Tensors& in) { return Tensors{f(in[0])}; }),
                    {.name = "f", .inputs = {"x"}, .outputs = {"y"}});
}

Strings types_of(const OnnxModel& model) {
  Strings types;
  for (const OnnxNode& node : model.nodes) types.push_back(node.type);
  return types;
}

TEST(Protobuf, NumbersAreWrittenAsTheSpecificationSays) {
  OnnxModel model{.name = "n"};
  model.nodes.push_back(
      {.type = "T",
       .name = "",
       .inputs = {""},
       .outputs = {"y"},
       .attributes = {{"i", int64_t{150}}, {"negative", int64_t{-1}}, {"f", 0.5F}}});
  const test::TemporaryFolder folder;
  const uint64_t bytes = write_onnx(folder / "a.onnx", model);
  const std::string text = read_file(folder / "a.onnx");
  EXPECT_EQ(bytes, text.size());
  EXPECT_EQ(folder.file_count(), 1U);
  // 150 is 96 01, the example of the format's description.
  EXPECT_NE(text.find(std::string("\x0a\x01i\x18\x96\x01\xa0\x01\x02", 9)), std::string::npos);
  const ProtobufReader file(text), graph(file.one(7).bytes), node(graph.one(1).bytes);
  EXPECT_EQ(file.one(1).integer, 8U);                                // ir_version
  EXPECT_EQ(ProtobufReader(file.one(8).bytes).one(2).integer, 17U);  // opset
  EXPECT_EQ(graph.one(2).bytes, "n");
  EXPECT_EQ(node.one(1).bytes, "");  // an input left out keeps its place
  const auto attributes = node.all(5);
  ASSERT_EQ(attributes.size(), 3U);
  EXPECT_EQ(static_cast<int64_t>(ProtobufReader(attributes[1].bytes).one(3).integer), -1);
  EXPECT_EQ(ProtobufReader(attributes[2].bytes).one(2).floating, 0.5F);
}

TEST(Onnx, AFileHoldsGraphWeightsAndPorts) {
  const Tensor x = Tensor::zeros({1, 4, 5, 2}, DType::f32), w = counted({1, 3, 2, 3}),
               v = counted({3, 4});
  OnnxModel model = model_of(x, [&](const Tensor& in) {
    const Scope scope("net");
    Tensor y;
    {
      const Scope layer("conv");
      y = leaky_relu(conv(in, w, {}, {.stride = {2, 1}, .padding = {0, 1}}), 0.25);  // (1, 2, 5, 3)
    }
    return linear(reshape(y, {1, 10, 3}), v);
  });
  const test::TemporaryFolder folder;
  write_onnx(folder / "f.onnx", model);
  const std::string text = read_file(folder / "f.onnx");
  const ProtobufReader file(text), graph(file.one(7).bytes);

  Strings types, names;
  for (const auto& field : graph.all(1)) {
    const ProtobufReader node(field.bytes);
    types.emplace_back(node.one(4).bytes);
    names.emplace_back(node.one(3).bytes);
  }
  EXPECT_EQ(types, (Strings{"Conv", "LeakyRelu", "Transpose", "Reshape", "MatMul", "Transpose",
                            "Identity"}));
  EXPECT_EQ(names[0], "net.conv/Conv");
  EXPECT_EQ(names[4], "net/MatMul");

  const ProtobufReader convolution(graph.all(1)[0].bytes);
  const std::vector<std::pair<std::string, std::vector<uint64_t>>> expected{
      {"kernel_shape", {1, 3}}, {"strides", {2, 1}}, {"pads", {0, 1, 0, 1}}, {"dilations", {1, 1}}};
  for (size_t i = 0; i < expected.size(); ++i) {
    const ProtobufReader attribute(convolution.all(5)[i].bytes);
    std::vector<uint64_t> values;
    for (const auto& each : attribute.all(8)) values.push_back(each.integer);
    EXPECT_EQ(attribute.one(1).bytes, expected[i].first);
    EXPECT_EQ(values, expected[i].second) << expected[i].first;
  }

  // Ours (1, 3, I 2, O 3) counts 0 ... 17; ONNX's is (O, I, 1, 3): weight [o][i][0][k] is 6 k + 3 i
  // + o.
  const ProtobufReader weight(graph.all(5)[0].bytes);
  EXPECT_EQ(weight.one(8).bytes, convolution.all(1)[1].bytes);
  std::vector<uint64_t> dims;
  for (const auto& d : weight.all(1)) dims.push_back(d.integer);
  EXPECT_EQ(dims, (std::vector<uint64_t>{3, 2, 1, 3}));
  ASSERT_EQ(weight.one(9).bytes.size(), 18 * sizeof(float));
  std::vector<float> values(18);
  std::memcpy(values.data(), weight.one(9).bytes.data(), 18 * sizeof(float));
  for (size_t o = 0, at = 0; o < 3; ++o)
    for (size_t i = 0; i < 2; ++i)
      for (size_t k = 0; k < 3; ++k) EXPECT_EQ(values[at++], static_cast<float>(6 * k + 3 * i + o));

  const auto sizes_of = [](std::string_view port) {
    const ProtobufReader type(ProtobufReader(port).one(2).bytes), tensor(type.one(1).bytes);
    EXPECT_EQ(tensor.one(1).integer, 1U);  // float
    std::vector<uint64_t> out;
    for (const auto& d : ProtobufReader(tensor.one(2).bytes).all(1))
      out.push_back(ProtobufReader(d.bytes).one(1).integer);
    return out;
  };
  EXPECT_EQ(sizes_of(graph.one(11).bytes), (std::vector<uint64_t>{1, 2, 4, 5}));
  EXPECT_EQ(sizes_of(graph.one(12).bytes), (std::vector<uint64_t>{1, 4, 10}));
}

TEST(Onnx, NothingIsTransposedAmongConvolutions) {
  const Tensor x = Tensor::zeros({1, 4, 4, 4, 2}, DType::f32), w = counted({3, 3, 3, 2, 2}),
               c = counted({2});
  const OnnxModel model = model_of(x, [&](const Tensor& in) {
    const ConvOptions same{.padding = {1}};
    const Tensor y = group_norm(conv(in, w, c, same), 2, c, c);
    const Tensor z = mul(relu(add(batch_norm_inference(conv(y, w, {}, same), c, c, c, c), y)), c);
    return concat({resize(avg_pool(z), {4, 4, 4}), softmax(in)}, -1);
  });
  EXPECT_EQ(types_of(model),
            (Strings{"Conv", "InstanceNormalization", "Conv", "BatchNormalization", "Add", "Relu",
                     "Mul", "AveragePool", "Resize", "Softmax", "Concat", "Identity"}));
  EXPECT_EQ(std::get<int64_t>(model.nodes[9].attributes[0].value), 1);  // our last axis
}

TEST(Onnx, PermutationsMoveNothingUntilAnOperatorNeedsThem) {
  const Tensor x = Tensor::zeros({1, 3, 4, 2}, DType::f32);
  // Our own transposition of a channels-first tensor back and forth.
  const OnnxModel model = model_of(x, [](const Tensor& in) {
    return permute(permute(relu(in), {0, 3, 1, 2}), {0, 2, 3, 1});
  });
  EXPECT_EQ(types_of(model), (Strings{"Relu", "Identity"}));
  // The value with channels first in our order of axes is what the file already has.
  const OnnxModel flat = model_of(x, [](const Tensor& in) {
    return reshape(contiguous(permute(in, {0, 3, 1, 2})), {1, 2, 12});
  });
  EXPECT_EQ(types_of(flat), (Strings{"Reshape", "Transpose", "Identity"}));
}

TEST(Onnx, WhatDependsOnParametersOnlyIsAConstant) {
  const Tensor x = Tensor::zeros({2, 3}, DType::f32), w = counted({3});
  const OnnxModel model = model_of(x, [&](const Tensor& in) {
    const Tensor unused = relu(in);
    return add(in, affine(w, 2, 1));
  });
  EXPECT_EQ(types_of(model), (Strings{"Add", "Identity"}));
  ASSERT_EQ(model.initializers.size(), 1U);
  EXPECT_EQ(model.initializers[0].values.to_vector(), (std::vector<double>{1, 3, 5}));
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Onnx, RefusalsNameOpLayerAndReason) {
  const Tensor x = Tensor::zeros({2, 3}, DType::f32);
  EXPECT_EQ(error_of([&] {
              model_of(x, [](const Tensor& in) {
                const Scope scope("head"), inner("vote");
                return cast(argmax(in), DType::f32);
              });
            }),
            "export: op 'argmax' has no ONNX form; at head.vote");
  EXPECT_EQ(error_of([&] { model_of(x, [&](const Tensor&) { return relu(x.clone()); }); }),
            "trace: output 0 does not depend on the input");
  // Three numbers that claim to be 3 GB: they are not read before the size is judged.
  OnnxModel huge;
  const int64_t bytes = int64_t{3} << 30;
  auto storage = std::make_shared<Storage>(x.raw(), bytes, Device::cpu, nullptr);
  huge.initializers.push_back(
      {"w", Tensor::view(storage, {{bytes / 4}, DType::f32, Device::cpu}, {1}, 0)});
  const test::TemporaryFolder folder;
  EXPECT_NE(error_of([&] {
              write_onnx(folder / "huge.onnx", huge);
            }).find("a protobuf message can have 2147483647"),
            std::string::npos);
  EXPECT_EQ(folder.file_count(), 0U);
}

TEST(Onnx, EveryReleasedNetworkHasAForm) {
  for (const std::string& net : net_names())
    for (const std::string& variant : net_variants(net)) {
      SCOPED_TRACE(net + " " + variant);
      const Network network = make_network(net_preset(net, variant), {.device = Device::meta});
      Shape shape{1};
      for (int64_t size : network.patch) shape.push_back(size);
      shape.push_back(network.in_channels);
      const Trace steps = trace(Metas{{shape, DType::f32, Device::meta}},
                                [&](const Tensors& in) { return network.forward(in[0], {.all_outputs = false}); });
      const OnnxModel model =
          onnx_model(steps, {.name = net, .inputs = {"image"}, .outputs = {"logits"}});
      EXPECT_EQ(model.outputs[0].shape[1], network.classes);
    }
}

}  // namespace
}  // namespace voxlab
