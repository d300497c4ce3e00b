// ONNX files: a model as plain data, and its writer (field numbers: onnx/onnx.proto). What the
// nodes mean is the exporter's business.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "runtime/core/tensor.h"

namespace voxlab {

struct OnnxAttribute {
  std::string name;
  std::variant<int64_t, float, std::string, std::vector<int64_t>> value;
};

struct OnnxNode {
  std::string type;
  std::string name;
  std::vector<std::string> inputs;  // "" stands for an optional input left out
  std::vector<std::string> outputs;
  std::vector<OnnxAttribute> attributes;
};

// An input or output of the graph; sizes in the file's order of axes.
struct OnnxPort {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
};

struct OnnxInitializer {
  std::string name;
  Tensor values;  // contiguous, on the host
};

struct OnnxModel {
  static constexpr int64_t ir_version = 8;
  static constexpr int64_t opset = 17;  // the first with LayerNormalization
  std::string name;
  std::string producer_version;
  std::vector<OnnxNode> nodes;  // each after those that it reads
  std::vector<OnnxInitializer> initializers;
  std::vector<OnnxPort> inputs, outputs;
  std::map<std::string, std::string> metadata;
};

int64_t onnx_type(DType dtype);  // TensorProto.DataType

// Bytes written. Error when the model would pass the 2 GB that a protobuf message can have.
uint64_t write_onnx(const std::filesystem::path& path, const OnnxModel& model);

}  // namespace voxlab
