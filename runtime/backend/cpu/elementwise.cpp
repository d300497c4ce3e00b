// Unary functions, their gradients and binary arithmetic on the vector loops.
#include <cstring>

#include "runtime/backend/cpu/driver.h"

namespace voxlab::cpu {
namespace {

static_assert(static_cast<int>(UnaryKind::step) == unary_kinds - 1 &&
              static_cast<int>(UnaryKind::gelu) == 3 && static_cast<int>(UnaryKind::sqrt) == 9);
static_assert(static_cast<int>(BinaryKind::equal) == binary_kinds - 1 &&
              static_cast<int>(BinaryKind::div) == 3);

Kernel unary_kernel(std::string_view op, const UnaryAttrs& a, UnaryFn loop, int64_t n,
                    int64_t bytes) {
  const auto alpha = static_cast<float>(a.alpha), beta = static_cast<float>(a.beta);
  return {.name = loop_name(op, to_string(a.kind)),
          .run = [=](Pointers in, Pointers out, std::byte*) {
            parallel_for(n, grain_elements, [&](int64_t begin, int64_t end) {
              const int64_t at = begin * bytes;
              loop({.x = in[0] + at,
                    .dy = in.size() > 1 ? in[1] + at : nullptr,
                    .y = out[0] + at,
                    .n = end - begin,
                    .alpha = alpha,
                    .beta = beta});
            });
          }};
}

// How one Binary call runs: a loop nest whose last axis the loops take, operands that need packing
// made contiguous in the workspace first.
struct BinaryPlan {
  std::vector<LoopAxis> axes;  // steps of y, a, b
  std::array<bool, 2> packed{};
  std::array<int64_t, 2> offset{};  // of the packed operand in the workspace, bytes
  std::array<std::vector<LoopAxis>, 2> packing;
  int64_t workspace = 0;
  int still = 0;  // see BinaryArgs
};

BinaryPlan plan_binary(Descs in, const TensorDesc& out) {
  BinaryPlan plan;
  std::array<TensorDesc, 2> operand{in[0], in[1]};
  const auto merge = [&] {
    plan.axes = merge_axes(
        out.shape(), {contiguous_strides(out.shape()), broadcast_strides(operand[0], out.shape()),
                      broadcast_strides(operand[1], out.shape())});
  };
  merge();
  const auto inner = plan.axes.back().step;
  for (size_t i = 0; i < 2; ++i) {
    const bool both_still = i == 0 && inner[1] == 0 && inner[2] == 0;
    if (inner[i + 1] == 1 || (inner[i + 1] == 0 && !both_still)) continue;
    const Strides dense = contiguous_strides(operand[i].shape());
    plan.packed[i] = true;
    plan.packing[i] = merge_axes(operand[i].shape(), {dense, operand[i].strides, dense});
    plan.offset[i] = plan.workspace;
    plan.workspace += ceil_divide(operand[i].meta.bytes(), 64) * 64;
    operand[i].strides = dense;
  }
  merge();
  const LoopAxis& last = plan.axes.back();
  plan.still = last.step[2] == 0 ? 1 : last.step[1] == 0 ? 2 : 0;
  return plan;
}

struct BinaryRun {
  const BinaryFn (*loops)[2];  // by `still`
  int storage;
  int64_t bytes;
};

// Rows that share one operand row and are narrow: that row is repeated once, and the rest is taken
// in wide rows.
bool run_repeated(const BinaryRun& run, const BinaryArgs& args) {
  const bool a_repeats = args.a_pitch == 0 && args.b_pitch == args.n;
  const bool b_repeats = args.b_pitch == 0 && args.a_pitch == args.n;
  if (args.rows * args.n < 1024 || args.y_pitch != args.n) return false;
  if (!a_repeats && !b_repeats) return false;
  const WideRows wide(args.rows, args.n);
  if (wide.repeat == 1) return false;
  std::array<std::byte, 128 * 4> tile;
  const void* row = a_repeats ? args.a : args.b;
  for (int64_t i = 0; i < wide.repeat; ++i)
    std::memcpy(tile.data() + i * args.n * run.bytes, row, static_cast<size_t>(args.n * run.bytes));
  BinaryArgs body = args;
  (a_repeats ? body.a : body.b) = tile.data();
  (a_repeats ? body.b_pitch : body.a_pitch) = body.y_pitch = body.n = wide.width;
  body.rows = wide.rows;
  const BinaryFn loop = run.loops[0][run.storage];
  loop(body);
  if (wide.rest > 0) {
    const int64_t done = wide.rows * wide.width * run.bytes;
    if (!a_repeats) body.a = static_cast<const std::byte*>(args.a) + done;
    if (!b_repeats) body.b = static_cast<const std::byte*>(args.b) + done;
    body.y = static_cast<std::byte*>(args.y) + done;
    body.rows = 1;
    body.n = wide.rest;
    loop(body);
  }
  return true;
}

// Rows [begin, end) of the nest, a row being the last axis.
void run_rows(const BinaryRun& run, const BinaryPlan& plan, const std::byte* a, const std::byte* b,
              std::byte* y, int64_t begin, int64_t end) {
  const auto& axes = plan.axes;
  const LoopAxis inner = axes.back();
  const LoopAxis row = axes.size() > 1 ? axes[axes.size() - 2] : LoopAxis{};
  for (int64_t r = begin; r < end;) {
    const int64_t first = r % row.size, count = std::min(end - r, row.size - first);
    std::array<int64_t, 3> at{};
    int64_t rest = r;
    for (size_t i = axes.size() - 1; i-- > 0;) {
      for (size_t k = 0; k < 3; ++k) at[k] += rest % axes[i].size * axes[i].step[k];
      rest /= axes[i].size;
    }
    const BinaryArgs args{.a = a + at[1] * run.bytes,
                          .b = b + at[2] * run.bytes,
                          .y = y + at[0] * run.bytes,
                          .rows = count,
                          .n = inner.size,
                          .a_pitch = row.step[1],
                          .b_pitch = row.step[2],
                          .y_pitch = row.step[0]};
    if (plan.still != 0 || !run_repeated(run, args)) run.loops[plan.still][run.storage](args);
    r += count;
  }
}

}  // namespace

Kernel prepare(const Unary::Attrs& a, Descs in, Descs) {
  const int storage = storage_of(in[0].dtype());
  if (storage < 0) return {};
  return unary_kernel("unary", a, active_loops().unary[static_cast<int>(a.kind)][storage],
                      in[0].numel(), size_of(in[0].dtype()));
}

Kernel prepare(const UnaryGrad::Attrs& a, Descs in, Descs) {
  const int storage = storage_of(in[0].dtype());
  if (storage < 0) return {};
  return unary_kernel("unary_grad", a, active_loops().unary_grad[static_cast<int>(a.kind)][storage],
                      in[0].numel(), size_of(in[0].dtype()));
}

Kernel prepare(const Binary::Attrs& a, Descs in, Descs out) {
  const int storage = storage_of(out[0].dtype());
  if (storage < 0) return {};
  const BinaryRun run{active_loops().binary[static_cast<int>(a.kind)], storage,
                      size_of(out[0].dtype())};
  BinaryPlan plan = plan_binary(in, out[0]);
  const int64_t workspace = plan.workspace, numel = out[0].numel();
  return {
      .name = loop_name("binary", to_string(a.kind)),
      .workspace = workspace,
      .run = [run, numel, plan = std::move(plan)](Pointers in_data, Pointers out_data,
                                                  std::byte* scratch) {
        if (numel == 0) return;
        std::array<const std::byte*, 2> operand{in_data[0], in_data[1]};
        for (size_t i = 0; i < 2; ++i) {
          if (!plan.packed[i]) continue;
          copy_strided(run.bytes, plan.packing[i], operand[i], scratch + plan.offset[i]);
          operand[i] = scratch + plan.offset[i];
        }
        std::byte* y = out_data[0];
        const LoopAxis inner = plan.axes.back();
        if (plan.axes.size() > 1) {
          parallel_for(numel / inner.size, grain_rows(inner.size), [&](int64_t begin, int64_t end) {
            run_rows(run, plan, operand[0], operand[1], y, begin, end);
          });
          return;
        }
        parallel_for(inner.size, grain_elements, [&](int64_t begin, int64_t end) {
          run.loops[plan.still][run.storage]({.a = operand[0] + begin * inner.step[1] * run.bytes,
                                              .b = operand[1] + begin * inner.step[2] * run.bytes,
                                              .y = y + begin * run.bytes,
                                              .rows = 1,
                                              .n = end - begin,
                                              .a_pitch = 0,
                                              .b_pitch = 0,
                                              .y_pitch = 0});
        });
      }};
}

}  // namespace voxlab::cpu
