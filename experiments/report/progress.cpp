#include "experiments/report/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>

namespace voxlab {
namespace {

constexpr double live_interval = 0.1;  // seconds between repaints
constexpr double lines_interval = 10;  // seconds between plain lines
constexpr double smoothing = 0.1;      // weight of the newest step in the averages

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int terminal_columns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

}  // namespace

ProgressMode progress_mode(bool quiet, bool json) {
  if (quiet) return ProgressMode::quiet;
  if (json) return ProgressMode::json;
  const char* term = std::getenv("TERM");
  const bool dumb = !term || std::string_view(term) == "dumb";
  return ::isatty(STDERR_FILENO) && !dumb ? ProgressMode::live : ProgressMode::lines;
}

std::string duration_text(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  const auto total = static_cast<int64_t>(std::llround(seconds));
  const int64_t hours = total / 3600, minutes = total / 60 % 60, rest = total % 60;
  return hours > 0 ? fmt::format("{}:{:02}:{:02}", hours, minutes, rest)
                   : fmt::format("{}:{:02}", minutes, rest);
}

Progress::Progress(std::string title, int64_t total, int64_t first, ProgressOptions options)
    : title_(std::move(title)), total_(total), first_(first), options_(std::move(options)) {
  if (!options_.now) options_.now = steady_seconds;
  out_ = options_.out;
  if (!out_) out_ = options_.mode == ProgressMode::json ? &std::cout : &std::cerr;
  started_ = previous_ = options_.now();
  printed_ = -1e9;
}

Progress::~Progress() {
  if (line_open_) *out_ << '\n' << std::flush;
}

void Progress::step(const ProgressStep& step) {
  const double now = options_.now();
  const double seconds = std::max(now - previous_, 1e-9);
  previous_ = now;
  const bool is_first = step_seconds_ == 0;
  step_seconds_ = is_first ? seconds : step_seconds_ + smoothing * (seconds - step_seconds_);
  if (step.samples > 0) {
    const double each = seconds / static_cast<double>(step.samples);
    sample_seconds_ = is_first ? each : sample_seconds_ + smoothing * (each - sample_seconds_);
  }
  const bool last = step.step >= total_;
  const double interval = options_.mode == ProgressMode::live    ? live_interval
                          : options_.mode == ProgressMode::lines ? lines_interval
                                                                 : 0;
  if (!last && now - printed_ < interval) return;
  printed_ = now;
  print(step, now);
}

std::string Progress::text(const ProgressStep& step, double now) const {
  std::string text = fmt::format("{}  {}/{}  loss {:.4f}", title_, step.step, total_, step.loss);
  if (step.dice) text += fmt::format("  dice {:.4f}", *step.dice);
  if (sample_seconds_ > 0) text += fmt::format("  {:.3g} samples/s", 1 / sample_seconds_);
  if (step.step >= total_) return text + fmt::format("  took {}", duration_text(now - started_));
  const auto left = static_cast<double>(total_ - step.step);
  return text + fmt::format("  ETA {}", duration_text(left * step_seconds_));
}

void Progress::print(const ProgressStep& step, double now) {
  switch (options_.mode) {
    case ProgressMode::quiet:
      return;
    case ProgressMode::live: {
      const int columns = options_.columns > 0 ? options_.columns : terminal_columns();
      // One column stays free: a full line would wrap on some terminals.
      *out_ << "\r\x1b[K" << text(step, now).substr(0, static_cast<size_t>(columns - 1));
      line_open_ = true;
      break;
    }
    case ProgressMode::lines:
      *out_ << text(step, now) << '\n';
      break;
    case ProgressMode::json: {
      nlohmann::json json = {{"title", title_},
                             {"step", step.step},
                             {"total", total_},
                             {"loss", step.loss},
                             {"seconds", now - started_},
                             {"eta", static_cast<double>(total_ - step.step) * step_seconds_}};
      if (step.dice) json["dice"] = *step.dice;
      if (sample_seconds_ > 0) json["samples_per_second"] = 1 / sample_seconds_;
      *out_ << json.dump() << '\n';
      break;
    }
  }
  out_->flush();
}

void Progress::note(std::string_view line) {
  switch (options_.mode) {
    case ProgressMode::quiet:
      return;
    case ProgressMode::live:
      *out_ << "\r\x1b[K" << line << '\n';
      line_open_ = false;
      printed_ = -1e9;
      break;
    case ProgressMode::lines:
      *out_ << line << '\n';
      break;
    case ProgressMode::json:
      *out_ << nlohmann::json({{"note", line}}).dump() << '\n';
      break;
  }
  out_->flush();
}

}  // namespace voxlab
