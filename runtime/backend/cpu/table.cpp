#include "runtime/backend/cpu/cpu.h"

namespace voxlab::cpu {
namespace {

template <class Op>
Kernel prepare_erased(const void* attrs, Descs in, Descs out) {
  return prepare(*static_cast<const typename Op::Attrs*>(attrs), in, out);
}

}  // namespace

void install() {
  AllOps::for_each([]<class Op>() {
    if constexpr (requires(const typename Op::Attrs& a, Descs d) { prepare(a, d, d); })
      install_kernel(Device::cpu, record_of<Op>(), &prepare_erased<Op>);
  });
}

}  // namespace voxlab::cpu
