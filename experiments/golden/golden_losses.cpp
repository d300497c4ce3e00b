// Records of the papers' losses: value, parts and gradient, deep-supervision weights and targets. The
// records were written by several scripts whose keys and sentences differ; `loss_config` reads them all.
#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>

#include "experiments/golden/subject.h"
#include "runtime/autograd/tape.h"
#include "runtime/core/error.h"
#include "runtime/ops/loss.h"
#include "runtime/train/loss.h"

namespace voxlab {
namespace {

using nlohmann::json;
using namespace train;

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

std::vector<int64_t> integers_of(std::string text) {
  std::vector<int64_t> all;
  const std::regex number("[0-9]+");
  for (std::smatch found; std::regex_search(text, found, number); text = found.suffix()) all.push_back(std::stoll(found[0]));
  return all;
}

Shape shape_of(const json& sizes) {
  Shape shape;
  for (const json& size : sizes) shape.push_back(size);
  return shape;
}

// ---- what a record's sentences say ----

// "channel 0 = WT = labels 1,2,3; 1 = TC = labels 2,3; 2 = ET = label 3"
std::vector<std::vector<int64_t>> regions_of(const json& config) {
  const json& given = config.value("regions", json());
  if (!given.is_string()) return {{1, 2, 3}, {2, 3}, {3}};  // BraTS
  std::vector<std::vector<int64_t>> regions;
  std::string text = given;
  const std::regex labels("labels? ([0-9, ]+)");
  for (std::smatch found; std::regex_search(text, found, labels); text = found.suffix())
    regions.push_back(integers_of(found[1]));
  return regions;
}

LossConfig monai_config(const json& options) {
  LossConfig c = LossConfig::monai();
  for (const auto& [key, value] : options.items()) {
    if (key == "to_onehot_y" || key == "softmax") {
      if (!value.get<bool>()) fail("loss record", key + " false is not covered");
    } else if (key == "batch") {
      c.batch_dice = value;
    } else if (key == "include_background") {
      c.background = value;
    } else if (key == "squared_pred") {
      c.squared = c.float32_label_norm = value;
    } else if (key == "lambda_dice") {
      c.dice_weight = value;
    } else if (key == "lambda_ce") {
      c.cross_entropy_weight = value;
    } else if (key == "smooth_nr") {
      c.numerator_smooth = value;
    } else if (key == "smooth_dr") {
      c.denominator_smooth = value;
    } else {
      fail("loss record", "unknown option " + key);
    }
  }
  return c;
}

LossConfig transunet_config(const std::string& text, const json& config) {
  LossConfig c = LossConfig::transunet();
  std::smatch found;
  if (std::regex_search(text, found, std::regex(R"(([0-9.]+) \* cross entropy \+ ([0-9.]+) \*)")))
    c = LossConfig::transunet(std::stod(found[1]), std::stod(found[2]));
  c.cross_entropy_weight = config.value("weight_ce", c.cross_entropy_weight);
  c.dice_weight = config.value("weight_dice", c.dice_weight);
  return c;
}

LossConfig nnunet_config(const std::string& text, const json& config) {
  const std::string inner = config.value("inner", "");
  const bool regions = contains(text, "BCE") || inner == "regions";
  const bool classes = contains(text, "cross entropy") || contains(text, "Dice") ||
                       contains(text, "DC_and_CE") || inner == "softmax";
  if (!regions && !classes)
    fail("loss record", "unknown loss: " + text);
  LossConfig c = regions ? LossConfig::nnunet_regions(regions_of(config)) : LossConfig::nnunet();
  if (text.starts_with("SoftDiceLoss")) c.cross_entropy_weight = 0;
  if (text.starts_with("cross entropy, mean")) c.dice_weight = 0;
  c.cross_entropy_weight = config.value("weight_ce", c.cross_entropy_weight);
  c.dice_weight = config.value("weight_dice", c.dice_weight);
  c.batch_dice = config.value("batch_dice", c.batch_dice);
  c.background = config.value("do_bg", c.background);
  c.squared = contains(text, "SoftDiceLossSquared");
  if (config.contains("smooth")) {
    const double smooth = config["smooth"];
    c.numerator_smooth = c.squared ? 2 * smooth : smooth;  // squared: 2 (intersection + smooth) on top
    c.denominator_smooth = c.squared ? smooth : smooth + 1e-8;
  }
  std::smatch found;
  if (std::regex_search(text, found, std::regex("ignore_label ?= ?([0-9]+)"))) c.ignore_label = std::stoll(found[1]);
  return c;
}

LossConfig loss_config(const json& record) {
  const json& config = record.at("config");
  const std::string text = config.value("loss", "");
  LossConfig c;
  if (config.contains("options") || text.starts_with("MONAI")) {
    c = monai_config(config.value("options", json::object()));
  } else if (contains(text, "sum(p^2)")) {
    c = transunet_config(text, config);
  } else {
    c = nnunet_config(text, config);
  }
  const json weights = record.value("weights", config.value("weights", json()));
  if (weights.is_array() && weights.size() > 1 && weights.back() == 0) c.supervision = Supervision::halving_but_last;
  return c;
}

// ---- the record's tensors ----

Tensor logits_of(const json& about, const GoldenOptions& options) {
  const json& scale = about.at("scale");
  const Shape shape = shape_of(about.at("shape"));
  const double spread = scale.is_number() ? scale.get<double>() : std::sqrt(3.0);  // or "sqrt(3)"
  const std::string name = about.at("name");
  const std::vector<float> values = golden_fill(name, shape.numel(), spread, 0);
  return to_channels_last(Tensor::from_span(shape, std::span<const float>(values), options.device)).to(options.dtype);
}

// "floor(u * 4)", "label = floor(u*4), ...; afterwards labels [2, 4] are set to 0". A channel axis of size
// 1, which label maps with the rank of their logits have, is dropped.
Tensor labels_of(const json& about, int logits_rank, Device device) {
  const std::string rule = about.value("rule", "");
  std::smatch found;
  if (!std::regex_search(rule, found, std::regex(R"(floor\(u ?\* ?([0-9]+)\))"))) fail("loss record", "no labels in: " + rule);
  const double classes = std::stod(found[1]);
  std::vector<int64_t> cleared;
  if (std::regex_search(rule, found, std::regex(R"(labels \[([0-9, ]*)\] are set to 0)"))) cleared = integers_of(found[1]);
  const Shape given = shape_of(about.at("shape"));
  Shape shape;
  for (int i = 0; i < given.rank(); ++i)
    if (i != 1 || given.rank() < logits_rank) shape.push_back(given[i]);
  Tensor labels = Tensor::empty(shape, DType::i32, device);
  const uint64_t hash = fnv1a64(about.at("name").get<std::string>());
  for (int64_t i = 0; i < shape.numel(); ++i) {
    const auto label = static_cast<int32_t>(golden_uniform(hash, i) * classes);
    labels.data<int32_t>()[i] = std::find(cleared.begin(), cleared.end(), label) == cleared.end() ? label : 0;
  }
  return labels;
}

struct Case {
  LossConfig config;
  Tensors logits, labels;  // one label map for each output
};

// Region targets given one channel at a time become channels of one tensor.
Tensor stacked(const Tensors& channels) {
  Shape shape = channels[0].shape();
  const auto count = static_cast<int64_t>(channels.size());
  shape.push_back(count);
  Tensor all = Tensor::empty(shape, DType::i32, channels[0].device());
  for (int64_t c = 0; c < count; ++c)
    for (int64_t i = 0; i < channels[0].numel(); ++i)
      all.data<int32_t>()[i * count + c] = channels[static_cast<size_t>(c)].data<int32_t>()[i];
  return all;
}

Case read_case(const json& record, const GoldenOptions& options) {
  Case c{.config = loss_config(record), .logits = {}, .labels = {}};
  const json& input = record.value("input", json::object());
  for (const json& about : record.contains("logits") ? record["logits"] : input.at("logits"))
    c.logits.push_back(logits_of(about, options));
  const int rank = c.logits[0].rank();
  if (record.contains("targets")) {
    for (const json& about : record["targets"]) c.labels.push_back(labels_of(about, rank, options.device));
    if (record["targets"][0].contains("channel")) c.labels = {stacked(c.labels)};
  } else {
    const Tensor labels = labels_of(input.at("target"), rank, options.device);
    for (const Tensor& x : c.logits)
      c.labels.push_back(downsample_labels(labels, std::vector<int64_t>(x.shape().begin() + 1, x.shape().end() - 1)));
  }
  if (c.labels.size() != c.logits.size()) fail("loss record", "as many targets as outputs expected");
  return c;
}

// ---- the checks ----

class Checker {
 public:
  Checker(GoldenReport& report, const json& record, const GoldenOptions& options) : report_(report) {
    const json noise = record.value("float32_noise", json::object());
    const bool f64 = options.dtype == DType::f64;
    // An f32 result cannot be nearer than its own rounding, however lucky the record's was.
    value_ = f64 ? 1e-9 : std::fmax(4 * noise.value("loss", 0.0), 5e-7);
    gradient_ = f64 ? 1e-9 : std::fmax(4 * noise.value("grad", 0.0), 1e-6);
  }

  void value(const std::string& name, const Tensor& got, const json& expected) {
    const double wanted = expected;
    report_.add(name, got ? std::fabs(got.item() - wanted) / std::fmax(std::fabs(wanted), 1e-300) : std::nan(""), value_,
                got ? "" : "not part of this loss");
  }
  void gradient(size_t i, const Tensor& got, const Tensor& logits, const json& record) {
    if (record.is_null()) {  // an output that is not evaluated
      report_.add("grad of output" + std::to_string(i), got ? 1 : 0, 0, "gradients where there should be none");
      return;
    }
    const Tensor g = got ? got : Tensor::zeros(logits.shape(), logits.dtype(), logits.device());
    report_.add(record.at("name"), tensor_error(to_channels_first(g).to_vector(), record), gradient_);
  }
  void exact(const std::string& name, double got, double expected) {
    report_.add(name, std::fabs(got - expected), 1e-11, "absolute");
  }

 private:
  GoldenReport& report_;
  double value_ = 0, gradient_ = 0;
};

double sum_of(const Tensor& labels) {
  double total = 0;
  for (double v : labels.to_vector()) total += v;
  return total;
}

void check_parts(Checker& check, const Case& c, const Loss& loss, const json& record) {
  const auto output = [&](size_t i) { return segmentation_loss(c.config, c.logits.at(i), c.labels.at(i)).total; };
  const json each = record.value("value_per_output", json::array());
  for (size_t i = 0; i < each.size(); ++i) check.value("output" + std::to_string(i), output(i), each[i]);
  const json parts = record.value("parts", json::object());
  for (const auto& [name, expected] : parts.items()) {
    if (name.starts_with("output")) {
      check.value(name, output(std::stoull(name.substr(6))), expected);
    } else {
      check.value(name, contains(name, "dice") ? loss.dice : loss.cross_entropy, expected);
    }
  }
}

// Sums of the labels, or of each region, that every output is compared with.
void check_label_sums(Checker& check, const Case& c, const json& record) {
  const json input = record.value("input", json::object());
  const json sums = input.value("target", json::object()).value("sums_per_output", json::array());
  for (size_t i = 0; i < sums.size(); ++i) {
    const bool regions = c.config.output == LossOutput::regions;
    const Tensor channels = regions ? membership(c.labels.at(i), c.config.regions) : c.labels.at(i);
    const std::vector<double> values = channels.to_vector();
    for (size_t k = 0; k < sums[i].size(); ++k) {
      double total = 0;
      for (size_t j = k; j < values.size(); j += sums[i].size()) total += values[j];
      check.exact("labels of output" + std::to_string(i) + " channel" + std::to_string(k), total, sums[i][k]);
    }
  }
}

void check_loss(Checker& check, const json& record, const GoldenOptions& options) {
  const Case c = read_case(record, options);
  Tape tape;
  tape.watch(c.logits);
  Loss loss;
  {
    const auto recording = tape.recording();
    loss = c.logits.size() == 1 ? segmentation_loss(c.config, c.logits[0], c.labels[0])
                                : deep_supervision_loss(c.config, c.logits, c.labels);
  }
  check.value("loss", loss.total, record.contains("value") ? record["value"] : record.at("loss"));
  check_parts(check, c, loss, record);
  const json weights = record.value("weights", record.at("config").value("weights", json::array()));
  const auto own = supervision_weights(c.config.supervision, static_cast<int64_t>(c.logits.size()));
  for (size_t i = 0; i < weights.size(); ++i)
    check.exact("weight" + std::to_string(i), i < own.size() ? own[i] : std::nan(""), weights[i]);
  const Tensors gradients = tape.gradient(loss.total, c.logits);
  const json& records = record.at("grad_logits");
  if (records.size() != gradients.size()) fail("loss record", "as many gradients as outputs expected");
  for (size_t i = 0; i < gradients.size(); ++i) check.gradient(i, gradients[i], c.logits[i], records[i]);
  check_label_sums(check, c, record);
}

void check_targets(GoldenReport& report, const json& cases) {
  for (const json& each : cases) {
    const Tensor labels = labels_of(each.at("target"), each.at("target").at("shape").size(), Device::cpu);
    int64_t at = 0;
    for (const json& level : each.at("levels")) {
      const std::string name = each.value("variant", "") + ".level" + std::to_string(++at);
      const Shape shape = shape_of(level.at("shape"));
      const Tensor small = downsample_labels(labels, std::span<const int64_t>(shape.begin() + 2, shape.end()));
      const std::vector<double> values = small.to_vector();
      double different = std::fabs(sum_of(small) - level.at("sum").get<double>());
      const json& first = level.at("labels_first_32");
      for (size_t i = 0; i < first.size(); ++i) different += i < values.size() && values[i] == first[i].get<double>() ? 0 : 1;
      report.add(name, different, 0, "labels that differ");
    }
  }
}

void check_weights(Checker& check, const json& weights) {
  for (const auto& [outputs, expected] : weights.items()) {
    const auto own = supervision_weights(Supervision::halving_but_last, std::stoll(outputs));
    for (size_t i = 0; i < expected.size(); ++i)
      check.exact(outputs + " outputs, weight" + std::to_string(i), i < own.size() ? own[i] : std::nan(""), expected[i]);
  }
}

}  // namespace

GoldenReport golden_losses(const std::filesystem::path& file, const json& record, const GoldenOptions& options) {
  GoldenReport report{file.string(), "losses", {}};
  Checker check(report, record, options);
  if (record.contains("cases")) {
    check_targets(report, record["cases"]);
  } else if (record.value("weights", json()).is_object()) {
    check_weights(check, record["weights"]);
  } else {
    check_loss(check, record, options);
  }
  return report;
}

}  // namespace voxlab
