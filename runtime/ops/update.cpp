#include "runtime/ops/update.h"

namespace voxlab {
namespace {

void check(std::string_view op, std::string_view what, bool good, double got) {
  if (!good) fail(op, std::string(what) + ", got " + std::to_string(got));
}

void check_state(std::string_view op, MetaSpan in, size_t expected) {
  if (in.size() != expected)
    fail(op, "expected " + std::to_string(expected) + " inputs, got " + std::to_string(in.size()));
  if (!is_floating(in[0].dtype)) fail(op, "expected a floating dtype, got " + in[0].to_string());
  for (size_t i = 1; i < in.size(); ++i)
    if (!(in[i] == in[0]))
      fail(op, std::string(i == 1 ? "gradient" : "state") + " is " + in[i].to_string() + ", parameter " + in[0].to_string());
}

}  // namespace

Metas SgdStep::infer(const Attrs& a, MetaSpan in) {
  check(name, "momentum must be in [0, 1)", a.momentum >= 0 && a.momentum < 1, a.momentum);
  check(name, "lr must not be negative", a.lr >= 0, a.lr);
  if (a.nesterov && (a.momentum == 0 || a.dampening != 0)) fail(name, "Nesterov takes momentum and no dampening");
  check_state(name, in, a.momentum > 0 ? 3 : 2);
  Metas out{in[0]};
  if (a.momentum > 0) out.push_back(in[2]);
  return out;
}
Cost SgdStep::cost(const Attrs& a, MetaSpan in, MetaSpan) {
  return {.flops = in[0].numel() * (2 + (a.momentum > 0 ? 3 : 0) + (a.nesterov ? 2 : 0) + (a.weight_decay != 0 ? 2 : 0))};
}

std::vector<Sample> SgdStep::samples() {
  const SampleInput p{.shape = {3, 37}};
  return {sample<SgdStep>("plain", {.lr = 0.1}, {p, p}),
          sample<SgdStep>("momentum", {.momentum = 0.9, .weight_decay = 1e-2}, {p, p, p}),
          sample<SgdStep>("nesterov", {.momentum = 0.99, .nesterov = true, .weight_decay = 3e-5, .grad_scale = 0.3}, {p, p, p}),
          sample<SgdStep>("first, damped", {.momentum = 0.9, .dampening = 0.5, .first = true}, {p, p, p}),
          sample<SgdStep>("damped", {.momentum = 0.9, .dampening = 0.5}, {p, p, p}),
          refused<SgdStep>("expected 3 inputs", {.momentum = 0.9}, {p, p}),
          refused<SgdStep>("gradient is", {}, {p, {.shape = {37, 3}}}),
          refused<SgdStep>("momentum must be in [0, 1)", {.momentum = 1}, {p, p, p}),
          refused<SgdStep>("Nesterov takes momentum", {.nesterov = true}, {p, p})};
}

Metas AdamStep::infer(const Attrs& a, MetaSpan in) {
  check(name, "betas must be in [0, 1)", a.beta1 >= 0 && a.beta1 < 1, a.beta1);
  check(name, "betas must be in [0, 1)", a.beta2 >= 0 && a.beta2 < 1, a.beta2);
  check(name, "lr must not be negative", a.lr >= 0, a.lr);
  check(name, "step counts from 1", a.step >= 1, static_cast<double>(a.step));
  check_state(name, in, a.amsgrad ? 5 : 4);
  Metas out{in[0]};
  for (size_t i = 2; i < in.size(); ++i) out.push_back(in[i]);
  return out;
}
Cost AdamStep::cost(const Attrs& a, MetaSpan in, MetaSpan) {
  return {.flops = in[0].numel() * (12 + (a.weight_decay != 0 ? 2 : 0) + (a.amsgrad ? 1 : 0))};
}

std::vector<Sample> AdamStep::samples() {
  const SampleInput p{.shape = {3, 37}}, v{.shape = {3, 37}, .low = 0};
  return {sample<AdamStep>("adam", {.weight_decay = 1e-2, .step = 3}, {p, p, p, v}),
          sample<AdamStep>("adamw", {.weight_decay = 1e-2, .decoupled = true, .grad_scale = 0.5}, {p, p, p, v}),
          sample<AdamStep>("amsgrad", {.beta2 = 0.9, .amsgrad = true, .step = 100}, {p, p, p, v, v}),
          refused<AdamStep>("expected 5 inputs", {.amsgrad = true}, {p, p, p, v}),
          refused<AdamStep>("state is", {}, {p, p, {.shape = {4}}, v}),
          refused<AdamStep>("betas must be in [0, 1)", {.beta1 = 1}, {p, p, p, v}),
          refused<AdamStep>("step counts from 1", {.step = 0}, {p, p, p, v})};
}

Metas SquaredNorm::infer(const Attrs&, MetaSpan in) {
  if (!is_floating(in[0].dtype)) fail(name, "expected a floating dtype, got " + in[0].to_string());
  return {{Shape{}, DType::f64, in[0].device}};
}
Cost SquaredNorm::cost(const Attrs&, MetaSpan in, MetaSpan) { return {.flops = 2 * in[0].numel()}; }

std::vector<Sample> SquaredNorm::samples() {
  return {sample<SquaredNorm>("many", {}, {{.shape = {5, 1037}}}), sample<SquaredNorm>("one", {}, {{.shape = {}}}),
          sample<SquaredNorm>("none", {}, {{.shape = {0, 3}}}),
          refused<SquaredNorm>("floating dtype", {}, {{.shape = {4}, .high = 5, .integer = true}})};
}

}  // namespace voxlab
