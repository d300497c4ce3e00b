#include "runtime/backend/cpu/driver.h"

#include "runtime/backend/cpu/isa.h"

namespace voxlab::cpu {

const Loops& active_loops() {
#if defined(__x86_64__)
  if (active_isa() == Isa::avx512_bf16 || active_isa() == Isa::amx) {
    static const Loops with_bf16 = [] {  // made where its instructions can run
      Loops table = loops_avx512;
      set_bf16_loops(table);
      return table;
    }();
    return with_bf16;
  }
  if (active_isa() >= Isa::avx512) return loops_avx512;
  if (active_isa() == Isa::avx2) return loops_avx2;
#endif
  return loops_plain;
}

std::string loop_name(std::string_view op, std::string_view detail) {
  std::string text = "cpu.";
  text += op;
  if (!detail.empty()) (text += '.') += detail;
  (text += '.') += name(std::min(active_isa(), Isa::avx512));
  return text;
}

int storage_of(DType dtype) { return dtype == DType::f32 ? 0 : dtype == DType::bf16 ? 1 : -1; }

std::vector<LoopAxis> merge_axes(const Shape& shape, const std::array<Strides, 3>& strides) {
  std::vector<LoopAxis> axes;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] == 1) continue;
    LoopAxis axis{.size = shape[i]};
    bool joins = !axes.empty();
    for (size_t k = 0; k < strides.size(); ++k) {
      axis.step[k] = strides[k][static_cast<size_t>(i)];
      joins = joins && axes.back().step[k] == axis.step[k] * axis.size;
    }
    if (joins) axis.size *= axes.back().size, axes.pop_back();
    axes.push_back(axis);
  }
  if (axes.empty()) axes.push_back({.size = 1, .step = {1, 1, 1}});
  return axes;
}

Strides broadcast_strides(const TensorDesc& operand, const Shape& shape) {
  Strides strides{};
  const int shift = shape.rank() - operand.shape().rank();
  for (int i = 0; i < operand.shape().rank(); ++i)
    strides[static_cast<size_t>(i + shift)] = operand.shape()[i] == 1 ? 0 : operand.stride(i);
  return strides;
}

void add_columns(int kind, int storage, const void* x, int64_t rows, int64_t columns,
                 double* total) {
  const auto add = active_loops().reduce_columns[kind][storage];
  const WideRows wide(rows, columns);
  if (wide.repeat == 1) return add(x, rows, columns, columns, total);
  const double none = kind == static_cast<int>(ReduceKind::max) ? -__builtin_inf() : 0.0;
  std::array<double, 128> sums;  // a wide row has fewer than 64 + 64 columns
  sums.fill(none);
  const auto* bytes = static_cast<const std::byte*>(x);
  add(bytes, wide.rows, wide.width, wide.width, sums.data());
  if (wide.rest > 0)
    add(bytes + wide.rows * wide.width * (storage == 0 ? 4 : 2), 1, wide.rest, wide.rest,
        sums.data());
  for (int64_t i = 0; i < wide.width; ++i) {
    double& to = total[i % columns];
    const double part = sums[static_cast<size_t>(i)];
    to = kind == static_cast<int>(ReduceKind::max) ? std::max(to, part) : to + part;
  }
}

}  // namespace voxlab::cpu
