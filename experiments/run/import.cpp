#include "experiments/run/import.h"

#include <set>

#include "runtime/core/error.h"
#include "runtime/io/safetensors.h"

namespace voxlab {
namespace {

// Squeezed or added axes of size 1 happen (a linear layer saved as a 1x1x1 convolution); values do not move.
Tensor with_shape(const std::string& key, const Tensor& t, const Shape& wanted, ImportReport& report) {
  if (t.shape() == wanted) return t;
  if (t.numel() != wanted.numel())
    fail(key, "has shape " + t.shape().to_string() + ", the network needs " + wanted.to_string());
  report.reshaped.push_back(key + ": " + t.shape().to_string() + " -> " + wanted.to_string());
  const Tensor plain = t.contiguous() ? t : t.clone();
  return Tensor::view(plain.storage(), {wanted, plain.dtype(), plain.device()}, contiguous_strides(wanted), plain.offset());
}

}  // namespace

ImportReport import_tensors(Network& network, const NamedTensors& source, bool partial) {
  ImportReport report;
  std::set<std::string> filled;
  for (const NamedTensor& item : source.items()) {
    const std::string ours = network.import_name(item.name);
    const nn::ParameterPtr p = ours.empty() ? nullptr : network.parameters.find(ours);
    if (ours.empty()) {
      report.ignored.push_back(item.name);
      continue;
    }
    if (!p) {
      // A tied tensor saved under a second name (E and F of UNETR++) has no place of its own.
      bool alias = false;
      for (const NamedTensor& other : source.items())
        alias = alias || (&other != &item && other.tensor.storage() == item.tensor.storage() &&
                          other.tensor.offset() == item.tensor.offset() && other.tensor.shape() == item.tensor.shape() &&
                          network.parameters.find(network.import_name(other.name)) != nullptr);
      (alias ? report.ignored : report.unexpected).push_back(item.name);
      continue;
    }
    if (filled.contains(ours)) {  // LeViT-UNet-192 saves every transformer block under two names
      const bool same = nn::from_source(*p, item.tensor).to(p->value.dtype()).to_vector() == p->value.to_vector();
      (same ? report.ignored : report.unexpected).push_back(item.name);
      continue;
    }
    if (const Shape wanted = nn::source_shape(*p); partial && item.tensor.numel() != wanted.numel()) {
      report.skipped.push_back(item.name + ": " + item.tensor.shape().to_string() + ", the network needs " +
                               wanted.to_string());
      continue;
    }
    const Tensor shaped = with_shape(item.name, item.tensor, nn::source_shape(*p), report);
    p->value = nn::from_source(*p, shaped).to(p->value.dtype());
    filled.insert(ours);
    ++report.loaded;
  }
  for (const auto& p : network.parameters.all())
    if (!filled.contains(p->name)) report.missing.push_back(p->name);
  return report;
}

ImportReport import_checkpoint(const NetConfig& config, const std::filesystem::path& input,
                               const std::filesystem::path& output, bool partial) {
  Network network = make_network(config, {});
  const NamedTensors source = read_tensors(input, {.strip_module_prefix = true});
  ImportReport report = import_tensors(network, source, partial);
  NamedTensors ours;
  for (const auto& p : network.parameters.all()) ours.add(p->name, p->value);
  ours.metadata["net"] = config.net;
  ours.metadata["variant"] = config.variant;
  write_safetensors(output, ours);
  return report;
}

}  // namespace voxlab
