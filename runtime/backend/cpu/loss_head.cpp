// Cross entropy and class sums in one pass over the logits. Labels are checked before any loop indexes by them.
#include "runtime/backend/cpu/driver.h"
#include "runtime/backend/cpu/labels.h"

namespace voxlab::cpu {
namespace {

// Whether a block of rows holds all classes; if not, the ops stand apart.
bool holds(const TensorDesc& x, const TensorDesc& labels) {
  return x.dtype() == DType::f32 && labels.dtype() == DType::i32 && x.shape()[-1] <= most_head_classes;
}

struct HeadCall {
  HeadCall(const ClassSumsAttrs& a, const TensorDesc& x)
      : batch(x.shape()[0]), classes(x.shape()[-1]), positions(x.numel() / (batch * classes)), attrs(a) {}

  double count(std::string_view op, const int32_t* labels) const {
    return total_weight(op, labels, batch * positions, classes, attrs.ignore_index, nullptr);
  }
  // Rows [begin, end) of all samples together.
  LossHeadArgs rows(const float* x, const int32_t* labels, int64_t begin, int64_t end) const {
    return {.x = x + begin * classes, .labels = labels + begin, .rows = end - begin, .classes = classes,
            .ignore = narrow_ignore(attrs.ignore_index), .squared = attrs.squared};
  }

  int64_t batch, classes, positions;
  ClassSumsAttrs attrs;
};

}  // namespace

Kernel prepare(const LossHead::Attrs& a, Descs in, Descs) {
  if (!holds(in[0], in[1])) return {};
  return {.name = loop_name(LossHead::name), .run = [c = HeadCall(a, in[0])](Pointers data, Pointers out, std::byte*) {
            const auto* labels = reinterpret_cast<const int32_t*>(data[1]);
            const double count = c.count(LossHead::name, labels);
            const auto width = static_cast<size_t>(3 * c.classes + 1);  // of one thread: its sums, its part of the loss
            double loss = 0;
            for (int64_t n = 0; n < c.batch; ++n) {
              std::vector<double> part(static_cast<size_t>(thread_count()) * width);
              parallel_pieces(c.positions, grain_rows(c.classes), [&](int piece, int64_t begin, int64_t end) {
                double* sums = &part[static_cast<size_t>(piece) * width];
                LossHeadArgs args = c.rows(floats(data[0]), labels, n * c.positions + begin, n * c.positions + end);
                args.sums = sums;
                args.loss = sums + width - 1;
                active_loops().loss_head(args);
              });
              for (size_t i = width; i < part.size(); ++i) part[i % width] += part[i];
              for (int64_t i = 0; i < 3 * c.classes; ++i)
                floats(out[static_cast<size_t>(1 + i / c.classes)])[n * c.classes + i % c.classes] = static_cast<float>(part[static_cast<size_t>(i)]);
              loss += part[width - 1];
            }
            *floats(out[0]) = static_cast<float>(loss / count);
          }};
}

Kernel prepare(const LossHeadGrad::Attrs& a, Descs in, Descs) {
  if (!holds(in[3], in[4])) return {};
  return {.name = loop_name(LossHeadGrad::name), .run = [c = HeadCall(a, in[3])](Pointers data, Pointers out, std::byte*) {
            const auto* labels = reinterpret_cast<const int32_t*>(data[4]);
            const auto share = static_cast<float>(*floats(data[0]) / c.count(LossHeadGrad::name, labels));
            for (int64_t n = 0; n < c.batch; ++n)
              parallel_for(c.positions, grain_rows(c.classes), [&](int64_t begin, int64_t end) {
                const int64_t row = n * c.positions + begin;
                LossHeadArgs args = c.rows(floats(data[3]), labels, row, n * c.positions + end);
                args.y = floats(out[0]) + row * c.classes;
                args.share = share;
                args.d_true = floats(data[1]) + n * c.classes;
                args.d_all = floats(data[2]) + n * c.classes;
                active_loops().loss_head_grad(args);
              });
          }};
}

}  // namespace voxlab::cpu
