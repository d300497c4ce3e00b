// Error: the one exception type. Its text says where (op, file or key), what was expected, what came.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace voxlab {

class Error : public std::runtime_error {
 public:
  Error(std::string_view where, const std::string& message);
  const std::string& where() const { return where_; }
  const std::string& message() const { return message_; }

 private:
  std::string where_;
  std::string message_;
};

// Throws Error "where: message", with "; at <scope>" when raised inside a named scope of a network.
[[noreturn]] void fail(std::string_view where, const std::string& message);

// An always-on check of our own invariants, not of user input.
[[noreturn]] void internal_error(const char* file, int line, const char* condition);

}  // namespace voxlab

#define VOXLAB_CHECK(condition) \
  ((condition) ? void(0) : ::voxlab::internal_error(__FILE__, __LINE__, #condition))
