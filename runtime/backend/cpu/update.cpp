// Optimizer updates and the squared norm of a tensor.
#include <cmath>

#include "runtime/backend/cpu/driver.h"

namespace voxlab::cpu {

Kernel prepare(const SgdStep::Attrs& a, Descs in, Descs) {
  if (!all_f32(in)) return {};
  const auto f = [](double v) { return static_cast<float>(v); };
  SgdArgs args{.lr = f(a.lr),
               .momentum = f(a.momentum),
               .undamped = f(1 - a.dampening),
               .weight_decay = f(a.weight_decay),
               .grad_scale = f(a.grad_scale),
               .nesterov = a.nesterov,
               .first = a.first};
  return {.name = loop_name(SgdStep::name),
          .run = [args, n = in[0].numel(), momentum = a.momentum > 0](Pointers data, Pointers,
                                                                      std::byte*) {
            parallel_for(n, grain_elements, [&](int64_t begin, int64_t end) {
              SgdArgs part = args;
              part.param = floats(data[0]) + begin;
              part.grad = floats(data[1]) + begin;
              part.buffer = momentum ? floats(data[2]) + begin : nullptr;
              part.n = end - begin;
              active_loops().sgd(part);
            });
          }};
}

Kernel prepare(const AdamStep::Attrs& a, Descs in, Descs) {
  if (!all_f32(in)) return {};
  const auto f = [](double v) { return static_cast<float>(v); };
  const auto t = static_cast<double>(a.step);
  AdamArgs args{.step_size = f(a.lr / (1 - std::pow(a.beta1, t))),
                .beta1 = f(a.beta1),
                .beta2 = f(a.beta2),
                .rest1 = f(1 - a.beta1),
                .rest2 = f(1 - a.beta2),
                .eps = f(a.eps),
                .weight_decay = f(a.decoupled ? 0 : a.weight_decay),
                .grad_scale = f(a.grad_scale),
                .keep = f(a.decoupled ? 1 - a.lr * a.weight_decay : 1),
                .root_scale = f(1 / std::sqrt(1 - std::pow(a.beta2, t)))};
  return {
      .name = loop_name(AdamStep::name),
      .run = [args, n = in[0].numel(), amsgrad = a.amsgrad](Pointers data, Pointers, std::byte*) {
        parallel_for(n, grain_elements, [&](int64_t begin, int64_t end) {
          AdamArgs part = args;
          part.param = floats(data[0]) + begin;
          part.grad = floats(data[1]) + begin;
          part.m = floats(data[2]) + begin;
          part.v = floats(data[3]) + begin;
          part.largest = amsgrad ? floats(data[4]) + begin : nullptr;
          part.n = end - begin;
          active_loops().adam(part);
        });
      }};
}

Kernel prepare(const SquaredNorm::Attrs&, Descs in, Descs) {
  const int storage = storage_of(in[0].dtype());
  if (storage < 0) return {};
  return {.name = loop_name(SquaredNorm::name),
          .run = [storage, n = in[0].numel()](Pointers x, Pointers y, std::byte*) {
            std::vector<double> part(static_cast<size_t>(thread_count()));
            parallel_pieces(n, grain_elements, [&](int piece, int64_t begin, int64_t end) {
              part[static_cast<size_t>(piece)] = active_loops().squared_norm[storage](
                  x[0] + begin * (storage == 0 ? 4 : 2), end - begin);
            });
            double total = 0;
            for (double p : part) total += p;
            *reinterpret_cast<double*>(y[0]) = total;
          }};
}

}  // namespace voxlab::cpu
