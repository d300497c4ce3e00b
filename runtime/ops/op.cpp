#include "runtime/ops/op.h"

#include <fmt/format.h>

namespace voxlab {

const Tensor& Saved::checked(const Tensors& from, const Metas& metas, size_t i) const {
  if (i >= from.size() || !from[i])
    fail(op_, "backward reads tensor " + std::to_string(i) + " of " + std::to_string(metas.size()) +
                  ", which the op does not save");
  return from[i];
}

namespace detail {
void FieldPrinter::put(double v) { text += fmt::format("{}", v); }

int64_t bytes_moved(MetaSpan in, MetaSpan out) {
  int64_t bytes = 0;
  for (const Meta& m : in) bytes += m.bytes();
  for (const Meta& m : out) bytes += m.bytes();
  return bytes;
}
}  // namespace detail

}  // namespace voxlab
