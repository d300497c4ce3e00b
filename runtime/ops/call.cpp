#include "runtime/ops/call.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>

#include "runtime/core/scope.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/kernel.h"

namespace voxlab {
namespace {

thread_local std::vector<Observer*> observers;
thread_local Recorder* recorder = nullptr;
thread_local bool backward_part = false;

struct CastCache {
  std::unordered_map<uint64_t, std::pair<Tensor, Tensor>> low;  // id -> (source kept alive, its cast)
};
thread_local CastCache* casts = nullptr;

std::map<std::pair<Device, const OpRecord*>, Prepare>& kernels() {
  static std::map<std::pair<Device, const OpRecord*>, Prepare> table;
  return table;
}

TensorDesc desc_of(const Tensor& t) {
  if (!t) return {.meta = {.shape = Shape{0}}, .present = false};
  return {.meta = t.meta(), .strides = t.strides(), .present = true};
}

Tensor cast_low(const Tensor& t) {
  auto& [source, low] = casts->low[t.id()];
  if (!low) {
    source = t;
    low = cast(t, DType::bf16);
  }
  return low;
}

void autocast_inputs(const OpRecord& op, Tensors& in) {
  if (casts == nullptr) return;
  if (op.precision == Precision::follow) {
    // A sum of a bf16 and an f32 value is an f32 sum.
    const auto has = [&](DType d) {
      return std::any_of(in.begin(), in.end(), [&](const Tensor& t) { return t && t.dtype() == d; });
    };
    if (!has(DType::f32) || !has(DType::bf16)) return;
    for (Tensor& t : in)
      if (t && t.dtype() == DType::bf16) t = cast(t, DType::f32);
    return;
  }
  for (Tensor& t : in) {
    if (!t) continue;
    if (op.precision == Precision::reduced && t.dtype() == DType::f32) t = cast_low(t);
    if (op.precision == Precision::full && t.dtype() == DType::bf16) t = cast(t, DType::f32);
  }
}

Device common_device(const OpRecord& op, const Tensors& in) {
  const Tensor* first = nullptr;
  for (const Tensor& t : in) {
    if (!t) continue;
    if (first == nullptr) first = &t;
    if (t.device() != first->device())
      fail(op.name, "inputs on two devices, " + std::string(to_string(first->device())) + " and " +
                        std::string(to_string(t.device())));
  }
  if (first == nullptr) fail(op.name, "no inputs");
  return first->device();
}

std::vector<TensorDesc> descs_of(const Tensors& tensors) {
  std::vector<TensorDesc> descs;
  for (const Tensor& t : tensors) descs.push_back(desc_of(t));
  return descs;
}

void run(const Kernel& kernel, const Tensors& in, const Tensors& out) {
  std::vector<std::byte*> in_data, out_data;
  for (const Tensor& t : in) in_data.push_back(t ? t.raw() : nullptr);
  for (const Tensor& t : out) out_data.push_back(t.raw());
  std::optional<Storage> workspace;
  if (kernel.workspace > 0) workspace.emplace(kernel.workspace, Device::cpu);
  kernel.run(in_data, out_data, workspace ? workspace->data() : nullptr);
}

}  // namespace

Tensors call(const OpRecord& op, std::shared_ptr<const void> attrs, Tensors in) {
  const Device device = common_device(op, in);
  autocast_inputs(op, in);
  if (!op.strided)
    for (Tensor& t : in)
      if (t && !t.contiguous()) t = contiguous(t);

  Metas in_metas;
  for (const Tensor& t : in) in_metas.push_back(t ? t.meta() : Meta{Shape{0}, DType::f32, device});
  Metas out_metas = op.infer(attrs.get(), in_metas);
  for (Meta& m : out_metas) m.device = device;

  // Without values there is nothing to compute: on meta, and where a trace follows shapes alone.
  const bool known = std::all_of(in.begin(), in.end(), [](const Tensor& t) { return !t || t.known(); });
  const bool runs = known && device != Device::meta;
  std::string_view kernel_name = runs ? "view" : "meta";
  std::string kernel_text;
  double seconds = 0;
  Tensors out;
  if (op.view != nullptr) {
    out = op.view(attrs.get(), in[0]);
  } else {
    for (size_t i = 0; i < out_metas.size(); ++i) {
      const int target = op.overwrites ? op.overwrites(attrs.get(), i) : -1;
      out.push_back(target >= 0 ? in[static_cast<size_t>(target)].renewed()
                    : known     ? Tensor::empty(out_metas[i])
                                : Tensor::unknown(out_metas[i]));
    }
    if (runs) {
      const Kernel kernel = prepare_kernel(op, attrs.get(), device, descs_of(in), descs_of(out));
      const bool timed = std::any_of(observers.begin(), observers.end(),
                                     [](const Observer* o) { return o->wants_time(); });
      const auto start = timed ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point{};
      run(kernel, in, out);
      if (timed)
        seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      kernel_text = kernel.name;
      kernel_name = kernel_text;
    }
  }
  if (!observers.empty()) {
    tell_observers({op, attrs, in_metas, out_metas, current_scope(), kernel_name, seconds,
                    memory_report(device).current, in, out});
  }
  if (recorder != nullptr && recorder->watches(in)) {
    if (op.overwrites != nullptr) fail(op.name, "overwrites its input, so a tape cannot record it");
    recorder->record(op, attrs, in, out);
  }
  return out;
}

void install_kernel(Device device, const OpRecord& op, Prepare prepare) {
  kernels()[{device, &op}] = prepare;
}

Prepare find_kernel(Device device, const OpRecord& op) {
  const auto found = kernels().find({device, &op});
  return found == kernels().end() ? nullptr : found->second;
}

Kernel prepare_kernel(const OpRecord& op, const void* attrs, Device device, Descs in, Descs out) {
  for (Device where : {device, Device::ref}) {
    if (Prepare p = find_kernel(where, op)) {
      Kernel kernel = p(attrs, in, out);
      if (kernel.run) return kernel;
    }
  }
  fail(op.name, "no kernel for " + in.front().meta.to_string() + " on " + std::string(to_string(device)));
}

bool observed() { return !observers.empty(); }
void tell_observers(CallEvent event) {
  event.backward = backward_part;
  for (Observer* observer : observers) observer->on_call(event);
}

BackwardPart::BackwardPart(bool on) : previous_(std::exchange(backward_part, on)) {}
BackwardPart::~BackwardPart() { backward_part = previous_; }

Observe::Observe(Observer& observer, bool alone) : previous_(observers) {
  if (alone) observers.clear();
  observers.push_back(&observer);
}
Observe::~Observe() { observers = std::move(previous_); }

RecordTo::RecordTo(Recorder* next) : previous_(recorder) { recorder = next; }
RecordTo::~RecordTo() { recorder = previous_; }
Recorder* current_recorder() { return recorder; }

Autocast::Autocast(DType low) : previous_(casts) {
  if (low == DType::f16) fail("autocast", "f16 needs loss scaling; use bf16");
  casts = low == DType::bf16 ? new CastCache : nullptr;
}
DType Autocast::current() { return casts == nullptr ? DType::f32 : DType::bf16; }
Autocast::~Autocast() {
  delete casts;
  casts = static_cast<CastCache*>(previous_);
}

}  // namespace voxlab
