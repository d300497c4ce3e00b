#include <utility>

#include "runtime/autograd/tape.h"
#include "runtime/core/scope.h"

namespace voxlab {
namespace {

thread_local bool second_run = false;

struct SecondRun {
  bool previous = std::exchange(second_run, true);
  ~SecondRun() { second_run = previous; }
};

// Notes which watched tensors of the outer tape a body reads, without recording anything.
class Touched final : public Recorder {
 public:
  explicit Touched(const Tape& outer) : outer_(outer) {}
  bool watches(const Tensors&) const override { return true; }
  void record(const OpRecord&, const std::shared_ptr<const void>&, const Tensors& in, const Tensors&) override {
    for (const Tensor& t : in)
      if (outer_.watches(t) && seen_.insert(t.id()).second) tensors.push_back(t);
  }
  Tensors tensors;

 private:
  const Tape& outer_;
  std::unordered_set<uint64_t> seen_;
};

}  // namespace

Tensors checkpoint(std::string_view name, const std::function<Tensors(const Tensors&)>& body,
                   const Tensors& inputs) {
  auto* tape = dynamic_cast<Tape*>(current_recorder());
  const Scope scope(name);
  if (tape == nullptr) return body(inputs);

  // Casts that the outer tape knows nothing of must not be found by it later: each run has its own.
  const DType low = Autocast::current();
  Touched touched(*tape);
  Tensors outputs;
  {
    const Autocast casts(low);
    const RecordTo to(&touched);
    outputs = body(inputs);
  }
  Tensors all = inputs;
  std::unordered_set<uint64_t> given;
  for (const Tensor& t : inputs) given.insert(t.id());
  for (const Tensor& t : touched.tensors)
    if (!given.contains(t.id())) all.push_back(t);

  tape->record_custom(name, all, outputs, [body, inputs, all, low](const Tensors& dout) {
    Tape inner;
    inner.watch(all);
    Tensors again;
    {
      const SecondRun second;
      const Autocast casts(low);
      const RecordTo to(&inner);
      again = body(inputs);
    }
    Tensors reached, cotangents;
    for (size_t i = 0; i < again.size(); ++i) {
      if (!dout[i]) continue;
      reached.push_back(again[i]);
      cotangents.push_back(dout[i]);
    }
    return inner.gradient(reached, cotangents, all);
  });
  return outputs;
}

bool recomputing() { return second_run; }

}  // namespace voxlab
