// The network or block that a record describes, built from the record's `config`.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "experiments/golden/golden.h"
#include "nets/zoo.h"
#include "runtime/nn/layers.h"

namespace voxlab {

struct Subject {
  nn::ParameterStore parameters;
  std::function<Tensors(const Tensor& x, const nn::Phase& phase)> forward;  // channels last
  std::function<std::string(std::string_view official_key)> import_name;
};

// Error when `net` or a config key's value is unknown. Dropout rates are 0, as in the records.
Subject build_subject(const nlohmann::json& record, const GoldenOptions& options);

// One file a network, subject_NET.cpp. The builder's parameters become the subject's; `config` is the record's.
struct SubjectParts {
  std::function<Tensors(const Tensor& x, const nn::Phase& phase)> forward;
  std::function<std::string(std::string_view official_key)> import_name;
};
SubjectParts subject_unetr_pp(const nlohmann::json& config, const nn::Builder& builder);
SubjectParts subject_ux_net(const nlohmann::json& config, const nn::Builder& builder);
SubjectParts subject_levit_unet(const nlohmann::json& config, const nn::Builder& builder);
SubjectParts subject_brats_unet(const nlohmann::json& config, const nn::Builder& builder);
SubjectParts subject_dae_former(const nlohmann::json& config, const nn::Builder& builder);
SubjectParts subject_unetr(const nlohmann::json& config, const nn::Builder& builder);

// The network of a case of a counts.json, by its name there; nullopt for a case that is not built here.
std::optional<NetConfig> counted_unetr_pp(const std::string& name);
std::optional<NetConfig> counted_ux_net(const std::string& name);
std::optional<NetConfig> counted_levit_unet(const std::string& name);
std::optional<NetConfig> counted_brats_unet(const std::string& name);
std::optional<NetConfig> counted_dae_former(const std::string& name);
std::optional<NetConfig> counted_unetr(const std::string& name);

// config[key] into field where the record has the key.
template <class Json, class T>
void take(const Json& config, const char* key, T& field) {
  if (config.contains(key)) field = config.at(key).template get<T>();
}

// Fills every parameter by the record's manifest; adds a failing row for each that does not match.
void fill_parameters(GoldenReport& report, Subject& subject, const nlohmann::json& manifest,
                     const GoldenOptions& options);

// The record's input of this name and (channels-first) shape, as a channels-last tensor.
Tensor golden_input(const std::string& name, const nlohmann::json& shape, const GoldenOptions& options);

// (N, C, ...) <-> (N, ..., C) for four and five axes; others unchanged.
Tensor to_channels_first(const Tensor& t);
Tensor to_channels_last(const Tensor& t);

// The largest deviation from a record of norm and probe (relative to the norm) and of the sampled values
// (relative to the largest value). `values` are in the record's order.
double tensor_error(const std::vector<double>& values, const nlohmann::json& record);

}  // namespace voxlab
