#include "runtime/backend/ref/ref.h"
#include "runtime/ops/kernel.h"

namespace voxlab::ref {
namespace {

Tensor wrap(const TensorDesc& desc, std::byte* data) {
  auto borrowed = std::make_shared<Storage>(data, desc.meta.bytes(), Device::ref, std::make_shared<int>(0));
  Meta meta = desc.meta;
  meta.device = Device::ref;
  return Tensor::view(std::move(borrowed), meta, desc.strides, 0);
}

Array load(const TensorDesc& desc, std::byte* data) {
  if (!desc.present) return {.shape = Shape{0}, .v = {}, .present = false};
  return {.shape = desc.shape(), .v = wrap(desc, data).to_vector()};
}

void store(const TensorDesc& desc, std::byte* data, const Array& values) {
  wrap(desc, data).copy_from(Tensor::from_span(values.shape, std::span<const double>(values.v), Device::ref));
}

template <class Op>
Kernel prepare(const void* attrs, Descs in, Descs out) {
  const typename Op::Attrs copy = *static_cast<const typename Op::Attrs*>(attrs);
  std::vector<TensorDesc> in_descs(in.begin(), in.end()), out_descs(out.begin(), out.end());
  return {.name = "ref." + std::string(Op::name),
          .run = [=](Pointers in_data, Pointers out_data, std::byte*) {
            std::vector<Array> inputs, outputs;
            for (size_t i = 0; i < in_descs.size(); ++i) inputs.push_back(load(in_descs[i], in_data[i]));
            for (const TensorDesc& desc : out_descs)
              outputs.push_back({.shape = desc.shape(), .v = std::vector<double>(static_cast<size_t>(desc.numel()))});
            reference(copy, inputs, outputs);
            for (size_t i = 0; i < out_descs.size(); ++i) store(out_descs[i], out_data[i], outputs[i]);
          }};
}

}  // namespace

void install() {
  AllOps::for_each([]<class Op>() {
    if constexpr (requires(const typename Op::Attrs& a, RefInputs in, RefOutputs out) { reference(a, in, out); })
      install_kernel(Device::ref, record_of<Op>(), &prepare<Op>);
  });
}

}  // namespace voxlab::ref
