#include "experiments/run/record.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "experiments/config/bind.h"
#include "experiments/config/emit.h"
#include "experiments/run/machine.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"

namespace voxlab {

nlohmann::json load_json(const std::filesystem::path& path) {
  const auto file = FileBytes::open(path);
  const char* begin = reinterpret_cast<const char*>(file->bytes().data());
  try {
    return nlohmann::json::parse(begin, begin + file->bytes().size());
  } catch (const nlohmann::json::exception& error) {
    fail(path.string(), fmt::format("not JSON: {}", error.what()));
  }
}

RunFolder::RunFolder(const std::filesystem::path& root, std::string id)
    : id_(std::move(id)), path_(root / id_) {}

RunFolder::~RunFolder() {
  if (lock_ >= 0) ::close(lock_);
}

nlohmann::json RunFolder::record() const { return load_json(file("record.json")); }

RunState RunFolder::state() const {
  if (!std::filesystem::exists(file("record.json"))) return RunState::absent;
  const nlohmann::json json = record();
  if (!json.is_object() || !json.contains("state") || !json["state"].is_string())
    voxlab::fail(file("record.json").string(), "expected an object with a 'state'");
  return parse_enum<RunState>(json["state"].get<std::string>(), file("record.json").string());
}

std::string RunFolder::error() const {
  return state() == RunState::failed ? record().value("error", "") : "";
}

bool RunFolder::lock() {
  if (lock_ >= 0) return true;
  std::error_code code;
  std::filesystem::create_directories(path_, code);
  if (code) voxlab::fail(path_.string(), fmt::format("cannot create: {}", code.message()));
  lock_ = ::open(file(".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0)
    voxlab::fail(file(".lock").string(), fmt::format("cannot open: {}", std::strerror(errno)));
  if (::flock(lock_, LOCK_EX | LOCK_NB) == 0) return true;
  ::close(lock_);
  lock_ = -1;
  return false;
}

void RunFolder::clear() {
  VOXLAB_CHECK(lock_ >= 0);
  for (const auto& entry : std::filesystem::directory_iterator(path_))
    if (entry.path().filename() != ".lock") std::filesystem::remove_all(entry.path());
}

void RunFolder::begin(const ConfigNode& resolved, int64_t seed, const std::string& label) {
  VOXLAB_CHECK(content_id(resolved) == id_);
  if (!lock()) voxlab::fail(path_.string(), "another process is working in this folder");
  nlohmann::json json;
  if (state() != RunState::absent) json = record();
  const std::string now = utc_now();
  if (!json.contains("started")) json["started"] = now;
  json["starts"].push_back(now);
  json["id"] = id_;
  json["label"] = label;
  json["state"] = to_string(RunState::partial);
  json["seed"] = seed;
  if (const ConfigNode* precision = resolved.find_path("train.precision")) json["precision"] = precision->text;
  json["revision"] = build_revision();
  json["dirty"] = build_revision().ends_with("-dirty");
  json["machine"] = to_json(to_node(this_machine()));
  json.erase("error");
  json.erase("ended");
  write_text("config.toml", to_toml(resolved));
  write_json("record.json", json);
}

void RunFolder::end(RunState state, const std::string& message) {
  nlohmann::json json = record();
  json["state"] = to_string(state);
  json["ended"] = utc_now();
  if (!message.empty()) json["error"] = message;
  write_json("record.json", json);
}

void RunFolder::finish(const Results& results) {
  write_json("result.json", to_json(results));
  end(RunState::finished, "");
}

void RunFolder::fail(const std::string& message) { end(RunState::failed, message); }

Results RunFolder::results() const {
  if (state() != RunState::finished)
    voxlab::fail(path_.string(), fmt::format("the run is {}", to_string(state())));
  return results_from_json(load_json(file("result.json")), file("result.json").string());
}

void RunFolder::write_json(const std::string& name, const nlohmann::json& json) const {
  // A text from elsewhere (a file name in an error) need not be UTF-8.
  write_text(name, json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

void RunFolder::write_text(const std::string& name, std::string_view text) const {
  AtomicFile out(file(name));
  out.write(text);
  out.commit();
}

}  // namespace voxlab
