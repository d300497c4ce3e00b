#include "runtime/core/scope.h"

#include "runtime/core/error.h"

namespace voxlab {
namespace {
thread_local std::string path;
}

Scope::Scope(std::string_view name) : previous_length_(path.size()) {
  if (name.empty()) return;
  if (!path.empty()) path += '.';
  path += name;
}

Scope::~Scope() { path.resize(previous_length_); }

const std::string& current_scope() { return path; }

ScopePath::ScopePath(std::string new_path) : previous_(std::move(path)) {
  path = std::move(new_path);
}

ScopePath::~ScopePath() { path = std::move(previous_); }

static std::string compose(std::string_view where, const std::string& message) {
  std::string text(where);
  if (!text.empty()) text += ": ";
  text += message;
  if (!path.empty()) text += "; at " + path;
  return text;
}

Error::Error(std::string_view where, const std::string& message)
    : std::runtime_error(compose(where, message)), where_(where), message_(message) {}

void fail(std::string_view where, const std::string& message) { throw Error(where, message); }

void internal_error(const char* file, int line, const char* condition) {
  throw Error("internal error", std::string(file) + ":" + std::to_string(line) + ": " + condition);
}

}  // namespace voxlab
