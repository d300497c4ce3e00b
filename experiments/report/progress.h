// Progress of a long job: one live line on a terminal, plain lines elsewhere, JSON lines or
// nothing.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace voxlab {

enum class ProgressMode : uint8_t { live, lines, json, quiet };

constexpr auto enum_names(ProgressMode) {
  return std::array{std::pair{std::string_view("live"), ProgressMode::live},
                    std::pair{std::string_view("lines"), ProgressMode::lines},
                    std::pair{std::string_view("json"), ProgressMode::json},
                    std::pair{std::string_view("quiet"), ProgressMode::quiet}};
}

// --quiet and --json as given; otherwise live when standard error is a terminal that can move its
// cursor.
ProgressMode progress_mode(bool quiet, bool json);

struct ProgressOptions {
  ProgressMode mode = ProgressMode::quiet;
  std::ostream* out = nullptr;  // null: standard error; standard output for json
  std::function<double()> now;  // seconds; empty: the steady clock
  int columns = 0;              // of a live line; 0: asks the terminal
};

struct ProgressStep {
  int64_t step = 0;  // steps done
  double loss = 0;
  std::optional<double> dice;
  int64_t samples = 0;  // of this step
};

class Progress {
 public:
  // `first` steps of `total` are done already: a run that goes on.
  Progress(std::string title, int64_t total, int64_t first, ProgressOptions options);
  ~Progress();  // ends a live line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(const ProgressStep& step);
  void note(std::string_view line);  // a line of its own, above the live one; in JSON {"note": ...}

 private:
  void print(const ProgressStep& step, double now);
  std::string text(const ProgressStep& step, double now) const;
  std::string title_;
  int64_t total_, first_;
  ProgressOptions options_;
  std::ostream* out_;
  double started_, printed_, previous_;
  double step_seconds_ = 0;  // moving averages over about 20 steps
  double sample_seconds_ = 0;
  bool line_open_ = false;
};

// "0:07", "12:40", "3:05:00"
std::string duration_text(double seconds);

}  // namespace voxlab
