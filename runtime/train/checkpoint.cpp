#include "runtime/train/checkpoint.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "runtime/core/error.h"
#include "runtime/io/safetensors.h"

namespace voxlab::train {
namespace {

constexpr std::string_view prefix = "optimizer/";
const std::string state_key = "voxlab_state";

nlohmann::json state_of(const std::filesystem::path& file,
                        const std::map<std::string, std::string>& metadata) {
  const auto found = metadata.find(state_key);
  if (found == metadata.end())
    fail(file.string(), "not a checkpoint of a training run: its metadata has no " + state_key);
  nlohmann::json state = nlohmann::json::parse(found->second, nullptr, false);
  if (!state.is_object()) fail(file.string(), state_key + " in its metadata is not a JSON object");
  return state;
}

NamedTensors content_of(const nn::ParameterStore& parameters, const Optimizer& optimizer,
                        const nlohmann::json& state) {
  NamedTensors tensors;
  for (const nn::ParameterPtr& p : parameters.all()) tensors.add(p->name, p->value);
  for (const NamedTensor& t : optimizer.state()) tensors.add(std::string(prefix) + t.name, t.value);
  tensors.metadata[state_key] = state.dump();
  return tensors;
}

}  // namespace

void save_checkpoint(const std::filesystem::path& file, const nn::ParameterStore& parameters,
                     const Optimizer& optimizer, const nlohmann::json& state) {
  write_safetensors(file, content_of(parameters, optimizer, state));
}

CheckpointWriter::~CheckpointWriter() {
  if (thread_.joinable()) thread_.join();
}

void CheckpointWriter::save(const std::filesystem::path& file, const nn::ParameterStore& parameters,
                            const Optimizer& optimizer, const nlohmann::json& state) {
  wait();
  NamedTensors copy;
  NamedTensors content = content_of(parameters, optimizer, state);
  for (const voxlab::NamedTensor& t : content.items()) copy.add(t.name, t.tensor.clone());
  copy.metadata = std::move(content.metadata);
  thread_ = std::thread([this, file, copy = std::move(copy)] {
    try {
      write_safetensors(file, copy);
    } catch (...) {
      error_ = std::current_exception();
    }
  });
}

void CheckpointWriter::wait() {
  if (thread_.joinable()) thread_.join();
  if (const std::exception_ptr error = std::exchange(error_, nullptr)) std::rethrow_exception(error);
}

nlohmann::json read_checkpoint_state(const std::filesystem::path& file) {
  return state_of(file, SafetensorsFile(file).metadata());
}

nlohmann::json load_checkpoint(const std::filesystem::path& file,
                               const nn::ParameterStore& parameters, Optimizer* optimizer) {
  const SafetensorsFile stored(file);
  nlohmann::json state = state_of(file, stored.metadata());
  Tensors values;
  std::vector<NamedTensor> moments;
  for (const SafetensorsEntry& entry : stored.entries()) {
    if (entry.name.starts_with(prefix)) {
      if (optimizer) moments.push_back({entry.name.substr(prefix.size()), stored.read(entry.name)});
    } else if (!parameters.find(entry.name)) {
      fail(file.string(), "has " + entry.name + ", which the network lacks");
    }
  }
  for (const nn::ParameterPtr& p : parameters.all()) {
    const auto& entries = stored.entries();
    if (std::none_of(entries.begin(), entries.end(),
                     [&](const auto& e) { return e.name == p->name; }))
      fail(file.string(), "lacks " + p->name);
    values.push_back(stored.read(p->name));
    if (!(values.back().shape() == p->value.shape()))
      fail(file.string(), p->name + " is " + values.back().shape().to_string() +
                              ", the network has " + p->value.shape().to_string());
  }
  if (optimizer) optimizer->load_state(moments);  // checks all before it changes any
  for (size_t i = 0; i < values.size(); ++i) parameters.all()[i]->value.copy_from(values[i]);
  return state;
}

}  // namespace voxlab::train
