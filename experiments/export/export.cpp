#include "experiments/export/export.h"

#include <unordered_map>

#include "experiments/export/onnx_ops.h"
#include "runtime/core/error.h"
#include "runtime/core/rng.h"
#include "runtime/io/safetensors.h"

namespace voxlab {
namespace {

// Normal values: what an image is after z-scoring.
Tensor drawn_image(const Network& network) {
  Shape shape{1};
  for (int64_t size : network.patch) shape.push_back(size);
  shape.push_back(network.in_channels);
  Tensor x = Tensor::empty(shape, DType::f32);
  const Philox random(1);
  for (int64_t i = 0; i < x.numel(); ++i)
    x.data<float>()[i] = static_cast<float>(random.normal(static_cast<uint64_t>(i)));
  return x;
}

}  // namespace

Tensor with_channels_first(const Tensor& t) {
  return contiguous(permute(t, channels_first(t.rank())));
}

Tensor with_channels_last(const Tensor& t) {
  std::vector<int> axes = {0};
  for (int axis = 2; axis < t.rank(); ++axis) axes.push_back(axis);
  axes.push_back(1);
  return contiguous(permute(t, axes));
}

ExportedNetwork export_network(const Network& network, const std::string& name) {
  std::unordered_map<uint64_t, std::string> names;
  for (const nn::ParameterPtr& p : network.parameters.all()) names[p->value.id()] = p->name;
  const Tensor x = drawn_image(network);
  const auto forward = [&](const Tensors& in) { return network.forward(in[0], {.all_outputs = false}); };
  const Trace steps = trace(Metas{x.meta()}, forward);
  OnnxOptions options{.name = name, .inputs = {"image"}, .outputs = {"logits"}};
  options.constant_name = [&](const Tensor& t) {
    const auto found = names.find(t.id());
    return found == names.end() ? std::string() : found->second;
  };
  return {onnx_model(steps, std::move(options)), with_channels_first(x),
          with_channels_first(forward({x}).front())};
}

void load_weights(const NetConfig& config, Network& network, const std::filesystem::path& file) {
  const SafetensorsFile stored(file);
  for (const auto& [key, expected] : {std::pair("net", config.net), {"variant", config.variant}}) {
    const auto found = stored.metadata().find(key);
    if (found != stored.metadata().end() && found->second != expected)
      fail(file.string(),
           std::string("holds weights of ") + key + " " + found->second + ", not of " + expected);
  }
  std::map<std::string, Tensor> values;
  for (const SafetensorsEntry& entry : stored.entries()) {
    if (entry.name.starts_with("optimizer/")) continue;
    if (!network.parameters.find(entry.name))
      fail(file.string(),
           "has " + entry.name + ", which the network lacks (official names: voxlab import)");
    values[entry.name] = stored.read(entry.name);
  }
  for (const nn::ParameterPtr& p : network.parameters.all()) {
    const auto found = values.find(p->name);
    if (found == values.end()) fail(file.string(), "lacks " + p->name);
    if (!(found->second.shape() == p->value.shape()))
      fail(file.string(), p->name + " is " + found->second.shape().to_string() +
                              ", the network has " + p->value.shape().to_string());
    p->value.copy_from(found->second);
  }
}

}  // namespace voxlab
