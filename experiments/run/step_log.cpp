#include "experiments/run/step_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "runtime/core/error.h"
#include "runtime/io/file.h"

namespace voxlab {

std::vector<nlohmann::json> read_step_log(const std::filesystem::path& path) {
  std::vector<nlohmann::json> lines;
  if (!std::filesystem::exists(path)) return lines;
  const auto file = FileBytes::open(path);
  std::string_view text(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  for (size_t number = 1, end; (end = text.find('\n')) != std::string_view::npos; ++number) {
    nlohmann::json line = nlohmann::json::parse(text.substr(0, end), nullptr, false);
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer())
      fail(fmt::format("{}:{}", path.string(), number), "expected a JSON object with a 'step'");
    lines.push_back(std::move(line));
    text.remove_prefix(end + 1);
  }
  return lines;
}

StepLog::StepLog(const std::filesystem::path& path, int64_t first_step) : path_(path) {
  std::string kept;
  for (const nlohmann::json& line : read_step_log(path))
    if (line["step"].get<int64_t>() < first_step) kept += line.dump() + "\n";
  AtomicFile file(path);
  file.write(kept);
  file.commit();
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (descriptor_ < 0) fail(path.string(), fmt::format("cannot append: {}", std::strerror(errno)));
}

StepLog::~StepLog() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void StepLog::write(const nlohmann::json& line) {
  VOXLAB_CHECK(line.is_object() && line.contains("step") && line["step"].is_number_integer());
  const std::string text = line.dump() + "\n";
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t count = ::write(descriptor_, rest.data(), rest.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path_.string(), fmt::format("cannot write: {}", std::strerror(errno)));
    rest.remove_prefix(static_cast<size_t>(count));
  }
}

void StepLog::sync() {
  if (::fdatasync(descriptor_) != 0)
    fail(path_.string(), fmt::format("cannot sync: {}", std::strerror(errno)));
}

}  // namespace voxlab
