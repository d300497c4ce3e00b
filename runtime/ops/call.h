// call: the one way an op runs. Infers, allocates, runs or (on meta, and on unknown values) stops there, tells the observers,
// and hands the call to the recorder (the tape) when there is one.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

Tensors call(const OpRecord& op, std::shared_ptr<const void> attrs, Tensors in);

template <OpPage Op>
Tensors call(typename Op::Attrs attrs, Tensors in) {
  return call(record_of<Op>(), std::make_shared<const typename Op::Attrs>(std::move(attrs)),
              std::move(in));
}

// The common case of one output.
template <OpPage Op>
Tensor call1(typename Op::Attrs attrs, Tensors in) {
  return call<Op>(std::move(attrs), std::move(in)).front();
}

// ---- what may watch calls -------------------------------------------------------------------------

struct CallEvent {
  const OpRecord& op;
  const std::shared_ptr<const void>& attrs;
  MetaSpan in;
  MetaSpan out;
  std::string_view scope;
  std::string_view kernel;  // implementation name; "view" or "meta" when nothing ran
  double seconds = 0;       // 0 unless some observer asked for timing
  int64_t memory = 0;       // bytes of live tensors after the call
  const Tensors& inputs;
  const Tensors& outputs;
  bool backward = false;  // within a BackwardPart
};

// Calls on this thread belong to the backward half of a training step for the guard's lifetime: events say so.
class BackwardPart {
 public:
  explicit BackwardPart(bool on = true);
  ~BackwardPart();
  BackwardPart(const BackwardPart&) = delete;
  BackwardPart& operator=(const BackwardPart&) = delete;

 private:
  bool previous_;
};

// Observers only look (ledger, profiler, tracer); they never change a result.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_call(const CallEvent& event) = 0;
  virtual bool wants_time() const { return false; }
};

// Registers an observer on this thread for the guard's lifetime.
class Observe {
 public:
  // alone: nobody else observes meanwhile.
  explicit Observe(Observer& observer, bool alone = false);
  ~Observe();
  Observe(const Observe&) = delete;
  Observe& operator=(const Observe&) = delete;

 private:
  std::vector<Observer*> previous_;
};

// Whether anyone observes on this thread, and a call made elsewhere (by a plan) told to them.
bool observed();
void tell_observers(CallEvent event);

// The tape's view of a call. `in` are the tensors after autocast and made contiguous.
class Recorder {
 public:
  virtual ~Recorder() = default;
  virtual bool watches(const Tensors& in) const = 0;
  virtual void record(const OpRecord& op, const std::shared_ptr<const void>& attrs, const Tensors& in,
                      const Tensors& out) = 0;
};

// Makes `recorder` (or none, for nullptr) the current one of this thread.
class RecordTo {
 public:
  explicit RecordTo(Recorder* recorder);
  ~RecordTo();
  RecordTo(const RecordTo&) = delete;
  RecordTo& operator=(const RecordTo&) = delete;

 private:
  Recorder* previous_;
};
Recorder* current_recorder();

// ---- autocast -------------------------------------------------------------------------------------

// For devices whose kernels take bf16 tensors (cast_type, core/arithmetic.h): while it lives, ops of Precision::reduced get
// their f32 inputs as bf16 and ops of Precision::full get f32. Casts of the same tensor are made once (parameters are cast once a step).
class Autocast {
 public:
  explicit Autocast(DType low);  // bf16 switches it on; f32 or f64 leaves everything as it is
  ~Autocast();
  static DType current();  // of the innermost on this thread; f32 when none is on
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  void* previous_;
};

}  // namespace voxlab
