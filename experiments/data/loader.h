// Loader: makes batches ahead in background threads and hands them out in the order of their steps.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "experiments/data/sampler.h"

namespace voxlab {

struct LoaderOptions {
  int64_t first = 0;  // steps [first, end) are made
  int64_t end = 0;
  int workers = 1;    // 0: no thread, a batch is made when it is asked for
  int64_t ahead = 3;  // batches that may wait
};

// `make` runs on several threads at once and must depend on its argument alone: then what next()
// gives does not depend on the number of workers. It must not call parallel_for: each thread that
// does would get an OpenMP team of its own beside the computing one.
class Loader {
 public:
  Loader(std::function<Batch(int64_t step)> make, const LoaderOptions& options);
  ~Loader();  // stops the workers; waits only for batches in the making
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // The batch of the next step. What `make` threw for this step is thrown here. Error past the end.
  Batch next();

 private:
  struct Slot {
    Batch batch;
    std::exception_ptr error;
  };
  void work();

  std::function<Batch(int64_t)> make_;
  LoaderOptions options_;
  int64_t taken_;    // the next step to hand out
  int64_t started_;  // the next step to make
  bool stop_ = false;
  std::map<int64_t, Slot> ready_;
  std::mutex mutex_;
  std::condition_variable may_make_, may_take_;
  std::vector<std::thread> workers_;
};

}  // namespace voxlab
