#include "runtime/io/onnx_file.h"

#include <fmt/format.h>

#include <limits>

#include "runtime/core/error.h"
#include "runtime/io/file.h"
#include "runtime/io/protobuf.h"

namespace voxlab {
namespace {

// AttributeProto: the value's field, and `type` that names it again.
ProtobufMessage encode(const OnnxAttribute& attribute) {
  enum Type : int64_t { type_float = 1, type_int = 2, type_string = 3, type_ints = 7 };
  ProtobufMessage m;
  m.text(1, attribute.name);
  int64_t type = type_int;
  if (const auto* number = std::get_if<int64_t>(&attribute.value)) {
    m.integer(3, *number);
  } else if (const auto* real = std::get_if<float>(&attribute.value)) {
    m.floating(2, *real);
    type = type_float;
  } else if (const auto* text = std::get_if<std::string>(&attribute.value)) {
    m.text(4, *text);
    type = type_string;
  } else {
    for (int64_t each : std::get<std::vector<int64_t>>(attribute.value)) m.integer(8, each);
    type = type_ints;
  }
  m.integer(20, type);
  return m;
}

ProtobufMessage encode(const OnnxNode& node) {
  ProtobufMessage m;
  for (const std::string& input : node.inputs) m.text(1, input);
  for (const std::string& output : node.outputs) m.text(2, output);
  m.text(3, node.name);
  m.text(4, node.type);
  for (const OnnxAttribute& attribute : node.attributes) m.message(5, encode(attribute));
  return m;
}

// TensorProto with raw_data, which is little-endian and row-major like ours.
ProtobufMessage encode(const OnnxInitializer& initializer) {
  const Tensor& values = initializer.values;
  VOXLAB_CHECK(values.contiguous());
  ProtobufMessage m;
  for (int64_t size : values.shape()) m.integer(1, size);
  m.integer(2, onnx_type(values.dtype()));
  m.text(8, initializer.name);
  m.borrowed(9, {values.raw(), static_cast<size_t>(values.bytes())});
  return m;
}

// ValueInfoProto > TypeProto > TypeProto.Tensor > TensorShapeProto > Dimension.
ProtobufMessage encode(const OnnxPort& port) {
  ProtobufMessage shape, tensor, type, m;
  for (int64_t size : port.shape) {
    ProtobufMessage dimension;
    dimension.integer(1, size);
    shape.message(1, dimension);
  }
  tensor.integer(1, onnx_type(port.dtype));
  tensor.message(2, shape);
  type.message(1, tensor);
  m.text(1, port.name);
  m.message(2, type);
  return m;
}

ProtobufMessage encode(const OnnxModel& model) {
  ProtobufMessage graph, opset, m;
  for (const OnnxNode& node : model.nodes) graph.message(1, encode(node));
  graph.text(2, model.name);
  for (const OnnxInitializer& initializer : model.initializers)
    graph.message(5, encode(initializer));
  for (const OnnxPort& port : model.inputs) graph.message(11, encode(port));
  for (const OnnxPort& port : model.outputs) graph.message(12, encode(port));
  opset.text(1, "");  // the standard operators
  opset.integer(2, OnnxModel::opset);
  m.integer(1, OnnxModel::ir_version);
  m.text(2, "voxlab");
  m.text(3, model.producer_version);
  m.message(7, graph);
  m.message(8, opset);
  for (const auto& [key, value] : model.metadata) {
    ProtobufMessage entry;
    entry.text(1, key);
    entry.text(2, value);
    m.message(14, entry);
  }
  return m;
}

}  // namespace

int64_t onnx_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 1;
    case DType::u8:
      return 2;
    case DType::i32:
      return 6;
    case DType::i64:
      return 7;
    case DType::boolean:
      return 9;
    case DType::f16:
      return 10;
    case DType::f64:
      return 11;
    case DType::bf16:
      return 16;
  }
  return 0;
}

uint64_t write_onnx(const std::filesystem::path& path, const OnnxModel& model) {
  const ProtobufMessage encoded = encode(model);
  constexpr auto most = static_cast<uint64_t>(std::numeric_limits<int32_t>::max());
  if (encoded.size() > most)
    fail(path.string(), fmt::format("the model has {} bytes, a protobuf message can have {}",
                                    encoded.size(), most));
  AtomicFile file(path);
  encoded.write_to(file);
  file.commit();
  return encoded.size();
}

}  // namespace voxlab
