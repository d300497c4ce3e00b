#include "experiments/run/machine.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "runtime/core/parallel.h"
#include "runtime/runtime.h"

namespace voxlab {
namespace {

// Those that decide which kernels can run, out of the hundred that a kernel lists.
constexpr std::string_view vector_features[] = {
    "sse4_2",   "avx",      "f16c",     "fma",         "avx2",        "avx_vnni",    "avx512f",
    "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile",
    "amx_bf16", "amx_int8", "amx_fp16", "neon",        "asimd",       "sve"};

struct CpuInfo {
  std::string model = "unknown";
  std::set<std::string> flags;
  std::set<std::pair<std::string, std::string>> cores;  // (package, core)
};

CpuInfo read_cpuinfo() {
  CpuInfo info;
  std::ifstream file("/proc/cpuinfo");
  std::string package;
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string key = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    const std::string value = begin == std::string::npos ? "" : line.substr(begin);
    if (key == "model name") info.model = value;
    if (key == "physical id") package = value;
    if (key == "core id") info.cores.insert({package, value});
    if (key == "flags" || key == "Features") {
      std::istringstream words(value);
      for (std::string word; words >> word;) info.flags.insert(word);
    }
  }
  return info;
}

int64_t usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
  return std::max<int64_t>(sysconf(_SC_NPROCESSORS_ONLN), 0);
}

}  // namespace

Machine this_machine() {
  const CpuInfo info = read_cpuinfo();
  Machine machine;
  machine.cpu = info.model;
  for (std::string_view feature : vector_features)
    if (info.flags.count(std::string(feature))) machine.features.emplace_back(feature);
  machine.isa = cpu_isa_name();
  machine.processors = usable_processors();
  machine.cores = info.cores.empty() ? machine.processors : static_cast<int64_t>(info.cores.size());
  machine.threads = thread_count();
  const double pages = static_cast<double>(sysconf(_SC_PHYS_PAGES));
  machine.memory_gib = pages * static_cast<double>(sysconf(_SC_PAGE_SIZE)) / (1 << 30);
  machine.memory_gib = static_cast<double>(static_cast<int64_t>(machine.memory_gib * 10)) / 10;
  utsname system{};
  machine.system = uname(&system) == 0
                       ? fmt::format("{} {} {}", system.sysname, system.release, system.machine)
                       : "unknown";
  machine.compiler = fmt::format("g++ {}", __VERSION__);
  return machine;
}

std::string describe(const Machine& machine) {
  return fmt::format("{} ({}), {} thread{}", machine.cpu, machine.isa, machine.threads,
                     machine.threads == 1 ? "" : "s");
}

std::string utc_now() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}Z", fmt::gmtime(std::time(nullptr)));
}

}  // namespace voxlab
