// Records of whole networks and of blocks: outputs, loss, gradients, running statistics, counts.
#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>

#include "experiments/golden/kinks.h"
#include "experiments/golden/subject.h"
#include "runtime/autograd/tape.h"
#include "runtime/core/error.h"
#include "runtime/plan/plan.h"

namespace voxlab {
namespace {

using nlohmann::json;

double norm_of(const std::vector<double>& v) {
  double sum = 0;
  for (double x : v) sum += x * x;
  return std::sqrt(sum);
}

// probe = sum of t * p with p the record's fill of "probe:NAME".
double probe_of(const std::vector<double>& v, const std::string& name) {
  const uint64_t hash = fnv1a64("probe:" + name);
  double sum = 0;
  for (size_t i = 0; i < v.size(); ++i)
    sum += v[i] * static_cast<float>(2 * golden_uniform(hash, static_cast<int64_t>(i)) - 1);
  return sum;
}

}  // namespace

double tensor_error(const std::vector<double>& v, const json& record) {
  const std::string name = record.at("name");
  const double norm = record.at("norm"), scale = norm == 0 ? 1 : norm;
  double error = std::fabs(norm_of(v) - norm) / scale;
  error = std::fmax(error, std::fabs(probe_of(v, name) - record.at("probe").get<double>()) / scale);
  const double largest = std::fmax(record.at("absmax").get<double>(), 1e-300);
  for (const json& sample : record.at("samples")) {
    const auto at = sample[0].get<size_t>();
    if (at >= v.size()) return std::nan("");
    error = std::fmax(error, std::fabs(v[at] - sample[1].get<double>()) / largest);
  }
  return std::isfinite(norm_of(v)) ? error : std::nan("");
}

namespace {

bool same_shape(const Shape& shape, const json& record) {
  return std::equal(shape.begin(), shape.end(), record.begin(), record.end(),
                    [](int64_t a, const json& b) { return a == b.get<int64_t>(); });
}

void check_outputs(GoldenReport& report, const std::string& phase, const Tensors& outputs, const json& records,
                   double limit) {
  if (outputs.size() != records.size()) {
    report.add(phase + ".outputs", std::nan(""), limit,
               "the network gives " + std::to_string(outputs.size()) + " outputs, the record has " +
                   std::to_string(records.size()));
    return;
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Tensor y = to_channels_first(outputs[i]);
    const std::string name = phase + "." + records[i].at("name").get<std::string>();
    if (!same_shape(y.shape(), records[i].at("shape"))) {
      report.add(name, std::nan(""), limit, "shape " + y.shape().to_string());
    } else {
      report.add(name, tensor_error(y.to_vector(), records[i]), limit);
    }
  }
}

// Limits by precision: in f64 fixed ones, in f32 four times the record's own float32 noise.
struct Limits {
  bool f64 = false;
  GoldenBound bound;
  DType cast = DType::f32;  // of the factors of products
  double outputs = 0;
  double gradients = 0;
  std::map<std::string, double> listed;  // gradients that the record lists, with their float32 noise
  std::set<std::string> ill, zero;

  // Gradients whose own float32 noise exceeds this say nothing in float32.
  static constexpr double ill_conditioned = 1e-4;

  double gradient(const std::string& name) const {
    const auto found = listed.find(name);
    const bool is_ill = ill.contains(name) || (found != listed.end() && found->second > ill_conditioned);
    if (f64) return is_ill ? 1e-6 : 1e-8;
    if (is_ill) return INFINITY;
    return found != listed.end() ? bound.of_gradient(4 * found->second) : gradients;
  }
};

double noise_of(const json& noise) {  // "outputs" is a figure or one figure an output
  if (noise.is_number()) return noise;
  double most = 0;
  for (const json& each : noise) most = std::fmax(most, each.is_number() ? each.get<double>() : 0);
  return most;
}

// A list of names, of rows that start with one, or an object that holds the list as "names".
void insert_names(std::set<std::string>& names, const json& from, const char* key) {
  if (!from.contains(key)) return;
  const json& found = from.at(key);
  for (const json& name : found.is_object() ? found.at("names") : found)
    names.insert(name.is_string() ? name : name.at(0));
}

Limits limits_of(const json& record, const char* phase, const GoldenOptions& options) {
  Limits limits{.f64 = options.dtype == DType::f64,
                .bound = golden_bound(options.precision),
                .cast = cast_type(options.precision, options.device),
                .outputs = 1e-9,
                .gradients = 1e-8};
  const json noise = record.value("float32_noise", json::object()).value(phase, json::object());
  const json section = record.value(phase, json::object());
  for (const json& top : noise.value("grads_top", json::array())) limits.listed[top[0]] = top[1];
  for (const char* key : {"ill_conditioned_grads", "ill_conditioned"})
    for (const json* from : std::initializer_list<const json*>{&record, &noise}) insert_names(limits.ill, *from, key);
  for (const char* key : {"zero_gradients", "zero_in_exact_arithmetic"})
    for (const json* from : std::initializer_list<const json*>{&record, &section, &noise})
      insert_names(limits.zero, *from, key);
  if (!limits.f64) {
    limits.outputs = 4 * noise_of(noise.value("outputs", json(2.5e-6)));
    // Gradients that are not listed are at least as well behaved as the least of those that are.
    limits.gradients = 4 * noise_of(noise.value("grads", json(1e-4)));
    for (const auto& [name, figure] : limits.listed) limits.gradients = std::fmin(limits.gradients, 4 * figure);
    limits.outputs = limits.bound.of(limits.outputs);
    limits.gradients = limits.bound.of_gradient(limits.gradients);
  }
  return limits;
}

void check_gradients(GoldenReport& report, const Subject& subject, const Tensors& gradients, const json& records,
                     const Limits& limits) {
  const auto trainable = subject.parameters.trainable();
  double typical = 0;
  for (const json& row : records)
    if (!row[1].is_null()) typical = std::fmax(typical, row[1].get<double>());
  for (const json& row : records) {
    const std::string official = row[0];
    const std::string ours = subject.import_name(official);
    size_t at = 0;
    while (at < trainable.size() && trainable[at]->name != ours) ++at;
    const std::string name = "train.grad:" + official;
    if (at == trainable.size()) {
      report.add(name, std::nan(""), 0, "no parameter " + ours);
      continue;
    }
    const nn::Parameter& p = *trainable[at];
    if (row[1].is_null()) {
      report.add(name, gradients[at] ? std::nan("") : 0, 0, "never reached: no gradient");
      continue;
    }
    const std::vector<double> g =
        gradients[at] ? nn::to_source(p, gradients[at]).to_vector()
                      : std::vector<double>(static_cast<size_t>(p.value.numel()));
    const double norm = row[1], probe = row[2];
    const double off = std::fmax(std::fabs(norm_of(g) - norm), std::fabs(probe_of(g, "grad:" + official) - probe));
    if (limits.zero.contains(official)) {
      report.add(name, std::fmax(norm_of(g), norm) / typical, limits.f64 ? 1e-10 : limits.bound.of_gradient(1e-4), "zero in exact arithmetic; relative to the largest gradient");
    } else {
      const double limit = limits.gradient(official);
      report.add(name, off / std::fmax(limits.bound.of_largest ? typical : norm, 1e-300), limit,
                 std::isinf(limit) ? "ill conditioned in float32: shown, not judged" : "");
    }
  }
}

// A gradient in float32 that misses its limit is compared with what a flipped activation can do, when the
// exact network shows that there is one: a record may hold an activation closer to 0 than rounding. The same
// record in f64 judges the gradient itself.
void allow_for_kinks(GoldenReport& report, const KinkWatch& kinks, const json& record, const GoldenBound& bound) {
  const double limit = kink_limit(bound);
  const auto excused = [&](const GoldenRow& row) {
    return !row.pass && row.name.starts_with("train.grad:") && row.error <= limit;
  };
  if (std::none_of(report.rows.begin(), report.rows.end(), excused)) return;
  const GoldenOptions exact{.device = Device::ref, .dtype = DType::f64};
  Subject subject = build_subject(record, exact);
  GoldenReport ignored;
  fill_parameters(ignored, subject, record.at("manifest"), exact);
  KinkWatch reference;
  {
    const Observe watching(reference);
    subject.forward(golden_input(record.at("input").at("name"), record.at("input").at("shape"), exact),
                    {.training = true});
  }
  const int64_t count = flipped(kinks, reference);
  if (count <= 0) return;
  for (GoldenRow& row : report.rows)
    if (excused(row))
      row = {row.name, row.error, limit, true, kink_note(count)};
}

void check_training(GoldenReport& report, Subject& subject, const Tensor& x, const json& record, const Limits& limits) {
  const json& train = record.at("train");
  Tape tape;
  const Tensors values = subject.parameters.values();
  tape.watch(values);
  tape.watch(x);
  Tensors outputs;
  KinkWatch kinks;
  {
    const Autocast autocast(limits.cast);
    const auto recording = tape.recording();
    std::optional<Observe> watching;
    if (!limits.f64) watching.emplace(kinks);
    outputs = subject.forward(x, {.training = true});
  }
  check_outputs(report, "train", outputs, train.at("outputs"), limits.outputs);
  Tensors cotangents;
  double loss = 0, loss_scale = 0;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Shape shape = to_channels_first(outputs[i]).shape();
    const auto n = static_cast<double>(shape.numel());
    const auto c = golden_fill("cotangent:out" + std::to_string(i), shape.numel(), 1, 0);
    const Tensor cotangent = to_channels_last(Tensor::from_span(shape, std::span<const float>(c), x.device()));
    const auto y = outputs[i].to_vector();
    auto weights = cotangent.to_vector();
    double part = 0, size = 0;
    for (size_t j = 0; j < y.size(); ++j) part += y[j] * weights[j], size += y[j] * y[j];
    loss += part / n;
    loss_scale += std::sqrt(size / n) / std::sqrt(n);
    for (double& w : weights) w /= n;
    cotangents.push_back(
        Tensor::from_span(cotangent.shape(), std::span<const double>(weights), x.device()).to(outputs[i].dtype()));
  }
  report.add("train.loss", std::fabs(loss - train.at("loss").get<double>()) / loss_scale, limits.outputs,
             "relative to the deviation of a random sum");
  Tensors wrt = values;
  wrt.push_back(x);
  Tensors gradients = tape.gradient(outputs, cotangents, wrt);
  if (train.contains("grad_input") && gradients.back())
    report.add("train.grad:input",
               tensor_error(to_channels_first(gradients.back()).to_vector(), train.at("grad_input")),
               limits.f64 ? 1e-8 : std::fmax(limits.gradients, limits.outputs));
  check_gradients(report, subject, gradients, train.at("grads"), limits);
  for (const json& row : train.value("buffers_after", json::array())) {
    const std::string official = row[0];
    const auto p = subject.parameters.find(subject.import_name(official));
    if (!p) {
      report.add("train.buffer:" + official, std::nan(""), 0, "no such buffer");
      continue;
    }
    const auto v = p->value.to_vector();
    const double norm = row[1], probe = row[2];
    const double off = std::fmax(std::fabs(norm_of(v) - norm), std::fabs(probe_of(v, "buffer:" + official) - probe));
    report.add("train.buffer:" + official, off / std::fmax(norm, 1e-300), limits.outputs);
  }
  if (!limits.f64) allow_for_kinks(report, kinks, record, limits.bound);
}

}  // namespace

Tensor to_channels_first(const Tensor& t) {
  if (t.rank() < 4) return t;
  std::vector<int> axes{0, t.rank() - 1};
  for (int i = 1; i + 1 < t.rank(); ++i) axes.push_back(i);
  Shape shape;
  Strides strides{};
  for (size_t i = 0; i < axes.size(); ++i) {
    shape.push_back(t.size(axes[i]));
    strides[i] = t.strides()[static_cast<size_t>(axes[i])];
  }
  return Tensor::view(t.storage(), {shape, t.dtype(), t.device()}, strides, t.offset());
}

Tensor to_channels_last(const Tensor& t) {
  if (t.rank() < 4) return t;
  Shape shape{t.size(0)};
  Strides strides{t.strides()[0]};
  for (int i = 2; i < t.rank(); ++i) {
    strides[static_cast<size_t>(i - 1)] = t.strides()[static_cast<size_t>(i)];
    shape.push_back(t.size(i));
  }
  strides[static_cast<size_t>(t.rank() - 1)] = t.strides()[1];
  shape.push_back(t.size(1));
  return Tensor::view(t.storage(), {shape, t.dtype(), t.device()}, strides, t.offset()).clone();
}

Tensor golden_input(const std::string& name, const json& shape, const GoldenOptions& options) {
  Shape s;
  for (const json& size : shape) s.push_back(size);
  const auto values = golden_fill(name, s.numel(), std::sqrt(3.0), 0);
  return to_channels_last(Tensor::from_span(s, std::span<const float>(values), options.device)).to(options.dtype);
}

void fill_parameters(GoldenReport& report, Subject& subject, const json& manifest, const GoldenOptions& options) {
  std::set<std::string> filled;
  for (const json& entry : manifest) {
    const std::string official = entry.at("name");
    const std::string ours = subject.import_name(official);
    if (ours.empty() || entry.contains("tied_to")) continue;
    const auto p = subject.parameters.find(ours);
    Shape shape;
    for (const json& size : entry.at("shape")) shape.push_back(size);
    if (!p || !(nn::source_shape(*p) == shape)) {
      report.add("parameter " + official, std::nan(""), 0,
                 p ? "is " + nn::source_shape(*p).to_string() + ", the record has " + shape.to_string() : "no parameter " + ours);
      continue;
    }
    const auto values = golden_fill(official, shape.numel(), entry.at("scale"), entry.at("offset"), entry.value("half", false));
    const Tensor source = Tensor::from_span(shape, std::span<const float>(values), options.device);
    p->value = nn::from_source(*p, source).to(options.dtype);
    filled.insert(ours);
  }
  for (const auto& p : subject.parameters.all())
    if (!filled.contains(p->name)) report.add("parameter " + p->name, std::nan(""), 0, "is not in the record");
}

GoldenReport golden_network(const std::filesystem::path& file, const json& record, const GoldenOptions& options) {
  GoldenReport report{.file = file.string(), .kind = "network"};
  Subject subject = build_subject(record, options);
  fill_parameters(report, subject, record.at("manifest"), options);
  if (!report.rows.empty()) return report;
  if (record.contains("counts") && record.at("counts").contains("params"))
    report.add("parameters", std::fabs(static_cast<double>(subject.parameters.count()) - record.at("counts").at("params").get<double>()), 0);

  const Tensor x = golden_input(record.at("input").at("name"), record.at("input").at("shape"), options);
  const Limits eval = limits_of(record, "eval", options);
  {
    const Autocast autocast(eval.cast);
    const json& outputs = record.at("eval").at("outputs");
    check_outputs(report, "eval", subject.forward(x, {}), outputs, eval.outputs);
    if (options.device == Device::cpu && eval.cast == DType::f32) {
      PlannedForward plan([&](const Tensor& t) { return subject.forward(t, {}); });
      check_outputs(report, "plan", plan(x), outputs, eval.outputs);
    }
  }
  if (record.value("train", json()).is_object())  // null: too large a network to train there
    check_training(report, subject, x, record, limits_of(record, "train", options));
  return report;
}

}  // namespace voxlab
