// Where and from what a number was made: the machine, the compiler, the revision of the source.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace voxlab {

struct Machine {
  std::string cpu;                    // model name
  std::vector<std::string> features;  // vector instruction sets, as the kernel names them
  std::string isa;                    // the level that the kernels use
  int64_t cores = 0;                  // physical
  int64_t processors = 0;             // logical ones that this process may use
  int64_t threads = 0;                // of the pool
  double memory_gib = 0;
  std::string system;
  std::string compiler;

  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("cpu", s.cpu);
    v("features", s.features);
    v("isa", s.isa);
    v("cores", s.cores);
    v("processors", s.processors);
    v("threads", s.threads);
    v("memory_gib", s.memory_gib);
    v("system", s.system);
    v("compiler", s.compiler);
  }
};

// What cannot be found out is "unknown" or 0.
Machine this_machine();

// "Intel(R) Xeon(R) ... (avx512), 2 threads"
std::string describe(const Machine& machine);

// What `git describe --always --dirty` said when the program was built; "unknown" without git.
std::string_view build_revision();

// "2026-01-31T08:15:00Z"
std::string utc_now();

}  // namespace voxlab
