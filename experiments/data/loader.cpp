#include "experiments/data/loader.h"

#include <string>

#include "runtime/core/error.h"

namespace voxlab {

Loader::Loader(std::function<Batch(int64_t)> make, const LoaderOptions& options)
    : make_(std::move(make)), options_(options), taken_(options.first), started_(options.first) {
  if (options_.workers < 0 || options_.ahead < 1)
    fail("loader", "workers must not be negative and ahead at least 1, got " +
                       std::to_string(options_.workers) + " and " + std::to_string(options_.ahead));
  for (int i = 0; i < options_.workers; ++i) workers_.emplace_back([this] { work(); });
}

Loader::~Loader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  may_make_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Loader::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    may_make_.wait(lock, [&] {
      return stop_ || started_ >= options_.end || started_ - taken_ < options_.ahead;
    });
    if (stop_ || started_ >= options_.end) return;
    const int64_t step = started_++;
    lock.unlock();
    Slot slot;
    try {
      slot.batch = make_(step);
    } catch (...) {
      slot.error = std::current_exception();
    }
    lock.lock();
    ready_.emplace(step, std::move(slot));
    may_take_.notify_one();
  }
}

Batch Loader::next() {
  std::unique_lock lock(mutex_);
  if (taken_ >= options_.end)
    fail("loader",
         "asked for step " + std::to_string(taken_) + " of " + std::to_string(options_.end));
  if (workers_.empty()) return make_(taken_++);
  may_take_.wait(lock, [&] { return ready_.contains(taken_); });
  Slot slot = std::move(ready_.extract(taken_).mapped());
  ++taken_;
  lock.unlock();
  may_make_.notify_one();
  if (slot.error) std::rethrow_exception(slot.error);
  return std::move(slot.batch);
}

}  // namespace voxlab
