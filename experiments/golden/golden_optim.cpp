// Records of optimizers (parameters after each of some steps) and of learning-rate schedules.
#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>

#include "experiments/golden/golden.h"
#include "runtime/core/error.h"
#include "runtime/train/optimizer.h"
#include "runtime/train/schedule.h"

namespace voxlab {
namespace {

using nlohmann::json;
using namespace train;

Shape shape_of(const json& sizes) {
  Shape shape;
  for (const json& size : sizes) shape.push_back(size);
  return shape;
}

Tensor filled(const std::string& name, const Shape& shape, double scale, const GoldenOptions& options) {
  const std::vector<float> values = golden_fill(name, shape.numel(), scale, 0);
  return Tensor::from_span(shape, std::span<const float>(values), options.device).to(options.dtype);
}

OptimizerConfig optimizer_config(const json& record) {
  const std::string kind = record.at("optimizer");
  const json& settings = record.at("settings");
  OptimizerConfig c;
  c.kind = kind == "SGD" ? OptimizerKind::sgd : kind == "Adam" ? OptimizerKind::adam : OptimizerKind::adamw;
  if (kind != "SGD" && kind != "Adam" && kind != "AdamW") fail("optim record", "unknown optimizer " + kind);
  if (kind == "Adam" && settings.value("decoupled_weight_decay", false)) c.kind = OptimizerKind::adamw;
  c.lr = settings.at("lr");
  c.weight_decay = settings.value("weight_decay", 0.0);
  c.momentum = settings.value("momentum", 0.0);
  c.dampening = settings.value("dampening", 0.0);
  c.nesterov = settings.value("nesterov", false);
  c.amsgrad = settings.value("amsgrad", false);
  c.eps = settings.value("eps", 1e-8);
  if (settings.contains("betas")) c.beta1 = settings["betas"][0], c.beta2 = settings["betas"][1];
  const json clip = record.value("clip_norm", json());
  c.clip_norm = clip.is_null() ? 0 : clip.get<double>();
  return c;
}

// Largest difference, relative to the largest value.
double value_error(const Tensor& t, const json& expected) {
  const std::vector<double> got = t.to_vector();
  if (got.size() != expected.size()) return std::nan("");
  double off = 0, largest = 1e-300;
  for (size_t i = 0; i < got.size(); ++i) {
    const double wanted = expected[i];
    off = std::isfinite(got[i]) ? std::fmax(off, std::fabs(got[i] - wanted)) : INFINITY;
    largest = std::fmax(largest, std::fabs(wanted));
  }
  return off / largest;
}

void check_optimizer(GoldenReport& report, const std::string& name, const json& record, const json& config,
                     const GoldenOptions& options) {
  const double limit = options.dtype == DType::f64 ? 1e-9 : 2e-6;
  std::vector<NamedTensor> parameters;
  for (const auto& [p, about] : config.at("parameters").items())
    parameters.push_back({p, filled("param:" + p, shape_of(about.at("shape")), 1, options)});
  Optimizer optimizer(optimizer_config(record), parameters);
  double parameter_error = 0, norm_error = -1;
  const auto compare = [&](const json& row) {
    for (const NamedTensor& p : parameters)
      if (row.contains(p.name)) parameter_error = std::fmax(parameter_error, value_error(p.value, row[p.name]));
  };
  for (const json& row : record.at("trace")) {
    Tensors gradients;
    for (const NamedTensor& p : parameters)
      gradients.push_back(filled("grad:" + std::to_string(row.at("step").get<int64_t>()) + ":" + p.name,
                                 p.value.shape(), record.value("grad_scale", 1.0), options));
    const double norm = optimizer.step(gradients, row.at("lr"));
    compare(row);
    if (row.contains("gradient_norm_before_clip")) {
      const double wanted = row["gradient_norm_before_clip"];
      norm_error = std::fmax(norm_error, std::fabs(norm - wanted) / wanted);
    }
  }
  compare(record.value("final", json::object()));
  report.add(name, parameter_error, limit);
  if (norm_error >= 0) report.add(name + ".norm", norm_error, limit);
}

double number_after(const std::string& text, const std::string& word, double otherwise) {
  std::smatch found;
  return std::regex_search(text, found, std::regex(word + R"(\s+([0-9.eE+-]*[0-9]))")) ? std::stod(found[1]) : otherwise;
}

ScheduleConfig schedule_config(const std::string& name, const json& record) {
  const std::string words = record.value("words", "");
  ScheduleConfig c;
  c.total = record.value("max", record.value("total", int64_t{1}));
  c.warmup = record.value("warmup", int64_t{0});
  c.warmup_factor = record.value("warmup_multiplier", 0.0);
  c.end_lr = record.value("end_lr", 0.0);
  c.power = record.value("exponent", 0.9);
  c.cycles = record.value("cycles", 0.5);
  if (name.starts_with("poly_per_iteration")) {
    c.kind = ScheduleKind::poly_delayed;
  } else if (name.starts_with("poly")) {
    c.kind = ScheduleKind::poly;
  } else if (name.starts_with("warmup_cosine")) {
    c.kind = ScheduleKind::warmup_cosine;
  } else if (name.starts_with("cosine")) {
    c.kind = ScheduleKind::cosine;
    c.total = static_cast<int64_t>(number_after(words, "t_max", static_cast<double>(c.total)));
    c.end_lr = number_after(words, "eta_min", 0);
  } else if (name.starts_with("linear_then_cosine")) {
    c.kind = ScheduleKind::cosine;
    c.warmup_factor = number_after(words, "from", 0);
    c.warmup = static_cast<int64_t>(number_after(words, "over", 0));
    c.total = c.warmup + static_cast<int64_t>(number_after(words, "CosineAnnealingLR over", 1));
    c.end_lr = number_after(words, "eta_min", 0);
  } else {
    fail("optim record", "unknown schedule " + name);
  }
  return c;
}

void check_schedule(GoldenReport& report, const std::string& name, const json& record) {
  const ScheduleConfig config = schedule_config(name, record);
  const double lr = record.at("initial");
  double off = 0;
  for (size_t i = 0; i < record.at("lr").size(); ++i) {
    const int64_t step = record.contains("epochs") ? record["epochs"][i].get<int64_t>() : static_cast<int64_t>(i);
    off = std::fmax(off, std::fabs(learning_rate(config, lr, step) - record["lr"][i].get<double>()));
  }
  report.add(name, off / lr, 1e-9, "relative to the initial rate");
}

}  // namespace

GoldenReport golden_optim(const std::filesystem::path& file, const json& record, const GoldenOptions& options) {
  GoldenReport report{file.string(), "optim", {}};
  const json cases = record.value("cases", json::object()), schedules = record.value("schedules", json::object());
  for (const auto& [name, each] : cases.items()) check_optimizer(report, name, each, record.at("config"), options);
  for (const auto& [name, each] : schedules.items()) check_schedule(report, name, each);
  return report;
}

}  // namespace voxlab
