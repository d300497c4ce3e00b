// Scope: the thread-local path of names that profile rows, cost rows and errors carry.
#pragma once

#include <string>
#include <string_view>

namespace voxlab {

class Scope {
 public:
  explicit Scope(std::string_view name);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  size_t previous_length_;
};

// "encoder.stage2.epa"; empty outside any scope.
const std::string& current_scope();

// Replaces the whole path for its lifetime: backward work is booked on the forward layer's row.
class ScopePath {
 public:
  explicit ScopePath(std::string path);
  ~ScopePath();
  ScopePath(const ScopePath&) = delete;
  ScopePath& operator=(const ScopePath&) = delete;

 private:
  std::string previous_;
};

}  // namespace voxlab
