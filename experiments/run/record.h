// The folder of one run, results/runs/<id>: config.toml (resolved, every default written out),
// record.json (seed, precision, revision, machine, times, state), result.json (the figures for tables), and
// what the run adds.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "experiments/config/node.h"
#include "experiments/run/results.h"

namespace voxlab {

// partial: begun, and ended by something that could not be recorded (a kill, a power cut).
enum class RunState : uint8_t { absent, partial, finished, failed };

constexpr auto enum_names(RunState) {
  return std::array{std::pair{std::string_view("absent"), RunState::absent},
                    std::pair{std::string_view("partial"), RunState::partial},
                    std::pair{std::string_view("finished"), RunState::finished},
                    std::pair{std::string_view("failed"), RunState::failed}};
}

class RunFolder {
 public:
  // Nothing is created yet. `id` is the content id of the resolved configuration.
  RunFolder(const std::filesystem::path& root, std::string id);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::string& id() const { return id_; }
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path file(const std::string& name) const { return path_ / name; }

  RunState state() const;
  std::string error() const;  // why it failed; empty otherwise

  // Makes the folder and takes it for this process until the object goes; false when another
  // process has it. The lock dies with its process.
  bool lock();

  // Removes all that a run left in the folder, which must be locked: the next start begins anew.
  void clear();

  // Writes config.toml and a record that says "partial". Times and attempts of earlier starts are
  // kept.
  void begin(const ConfigNode& resolved, int64_t seed, const std::string& label);
  void finish(const Results& results);
  void fail(const std::string& message);

  Results results() const;        // Error unless finished
  nlohmann::json record() const;  // Error when there is none
  void write_json(const std::string& name, const nlohmann::json& json) const;
  void write_text(const std::string& name, std::string_view text) const;

 private:
  void end(RunState state, const std::string& message);
  std::string id_;
  std::filesystem::path path_;
  int lock_ = -1;
};

// A whole JSON file. Error with the file's name when it cannot be read or is not JSON.
nlohmann::json load_json(const std::filesystem::path& path);

}  // namespace voxlab
