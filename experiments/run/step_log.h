// The per-step log of a run: one JSON object a line, appended in one write each, so that a killed
// run leaves whole lines and at most one cut one, which the next start drops.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace voxlab {

class StepLog {
 public:
  // Keeps the lines of steps before `first_step` and drops the rest: a run that goes on from a
  // checkpoint writes those steps again.
  explicit StepLog(const std::filesystem::path& path, int64_t first_step = 0);
  ~StepLog();
  StepLog(const StepLog&) = delete;
  StepLog& operator=(const StepLog&) = delete;

  // `line` is an object with an integer "step".
  void write(const nlohmann::json& line);
  void sync();  // after it, power loss does not take the lines away

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

// The whole lines of a log, in order; a cut last line is left out. Empty when there is no file.
std::vector<nlohmann::json> read_step_log(const std::filesystem::path& path);

}  // namespace voxlab
