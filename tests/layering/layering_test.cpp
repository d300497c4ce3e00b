// The layers of the source tree: who may include whom, and what every source file must keep to.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace voxlab {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string_view>;

// A row speaks for the files of its folder and below, where no longer row does. Its files may
// include those that fall to the same row or to a row named in `sees`.
struct Layer {
  std::string_view folder;
  Names sees;
};

const std::vector<Layer>& layers() {
  static const std::vector<Layer> table = {
      {"runtime/core", {}},
      {"runtime/ops", {"runtime/core"}},
      {"runtime/autograd", {"runtime/core", "runtime/ops"}},
      {"runtime/backend", {"runtime/core", "runtime/ops"}},  // the kernel contract
      {"runtime/backend/ref", {"runtime/core", "runtime/ops", "runtime/backend"}},
      {"runtime/backend/cpu", {"runtime/core", "runtime/ops", "runtime/backend"}},
      {"runtime/plan", {"runtime/core", "runtime/ops"}},
      {"runtime/nn", {"runtime/core", "runtime/ops", "runtime/autograd"}},
      {"runtime/io", {"runtime/core"}},
      {"runtime/analyze", {"runtime/core", "runtime/ops"}},
      {"runtime/train",
       {"runtime/core", "runtime/ops", "runtime/autograd", "runtime/nn", "runtime/plan", "runtime/io"}},
      // The composition root, files directly in runtime/: the one place that knows every backend.
      {"runtime",
       {"runtime/core", "runtime/ops", "runtime/autograd", "runtime/backend", "runtime/backend/ref",
        "runtime/backend/cpu"}},
      {"nets", {"runtime/core", "runtime/ops", "runtime/nn"}},
      {"experiments",
       {"runtime/core", "runtime/ops", "runtime/autograd", "runtime/nn", "runtime/io",
        "runtime/analyze", "runtime/plan", "runtime/train", "runtime", "nets"}},
  };
  return table;
}

constexpr int max_lines = 600;

// Costly to parse: a header that includes one of these makes every file above it slow to build.
const Names& heavy_headers() {
  static const Names table = {"gtest/", "benchmark/", "toml++/", "nlohmann/json.hpp",
                              "fmt/",   "CLI/"};
  return table;
}

bool inside(std::string_view path, std::string_view folder) {
  return path.starts_with(folder) && path.size() > folder.size() && path[folder.size()] == '/';
}

// The longest row that holds the file. A new folder under runtime/ needs a row of its own: the
// root's row takes only the files directly in it.
const Layer* layer_of(std::string_view path) {
  const Layer* best = nullptr;
  for (const Layer& layer : layers()) {
    if (!inside(path, layer.folder)) continue;
    const bool direct = path.find('/', layer.folder.size() + 1) == std::string_view::npos;
    if (layer.folder == "runtime" && !direct) continue;
    if (!best || layer.folder.size() > best->folder.size()) best = &layer;
  }
  return best;
}

struct Include {
  std::string target;
  bool quoted = false;
  int line = 0;
};

std::optional<Include> parse_include(std::string_view line) {
  const auto skip_blanks = [&] {
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  };
  skip_blanks();
  if (!line.starts_with('#')) return {};
  line.remove_prefix(1);
  skip_blanks();
  if (!line.starts_with("include")) return {};
  line.remove_prefix(7);
  skip_blanks();
  if (line.empty() || (line.front() != '"' && line.front() != '<')) return {};
  const bool quoted = line.front() == '"';
  line.remove_prefix(1);
  const size_t end = line.find(quoted ? '"' : '>');
  if (end == std::string_view::npos) return {};
  return Include{std::string(line.substr(0, end)), quoted};
}

// Empty when the include is right, else what is wrong with it.
std::string include_fault(const Layer& from, bool header, const Include& include) {
  const bool climbs = include.target.find("..") != std::string::npos;
  const Layer* to = climbs ? nullptr : layer_of(include.target);
  if (!to) {
    if (include.quoted || climbs) return "is not a path from the repository root into a layer";
    const bool heavy = std::any_of(heavy_headers().begin(), heavy_headers().end(),
                                   [&](auto prefix) { return include.target.starts_with(prefix); });
    return header && heavy ? "is too heavy for a header; include it in a .cpp file" : "";
  }
  if (to == &from || std::count(from.sees.begin(), from.sees.end(), to->folder)) return "";
  return "is a wrong arrow: " + std::string(from.folder) + " must not see " +
         std::string(to->folder);
}

// Everything wrong with one file, as "path:line: ..." lines.
std::vector<std::string> faults(const std::string& path, std::string_view text) {
  std::vector<std::string> found;
  const Layer* from = layer_of(path);
  if (!from)
    return {path + ": no layer holds it; add its folder to the table in layering_test.cpp"};
  const bool header = path.ends_with(".h") || path.ends_with(".cuh");
  bool once = false;
  int number = 0;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    ++number;
    once = once || line == "#pragma once";
    const auto include = parse_include(line);
    if (!include) continue;
    const std::string fault = include_fault(*from, header, *include);
    if (!fault.empty()) {
      found.push_back(path + ":" + std::to_string(number) + ": " + include->target + " " + fault);
    }
  }
  if (header && !once) found.push_back(path + ": header without #pragma once");
  if (number > max_lines) {
    found.push_back(path + ": " + std::to_string(number) + " lines; at most " +
                    std::to_string(max_lines));
  }
  return found;
}

std::vector<std::string> source_files(const fs::path& root) {
  std::vector<std::string> files;
  for (const char* top : {"runtime", "nets", "experiments"}) {
    if (!fs::exists(root / top)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      const std::string kind = entry.path().extension();
      if (kind == ".h" || kind == ".cpp" || kind == ".cu" || kind == ".cuh") {
        files.push_back(fs::relative(entry.path(), root).generic_string());
      }
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

TEST(Layering, TreeKeepsToItsLayers) {
  const fs::path root = VOXLAB_SOURCE_DIR;
  const std::vector<std::string> files = source_files(root);
  ASSERT_FALSE(files.empty()) << "no sources under " << root;
  for (const std::string& path : files) {
    std::stringstream text;
    text << std::ifstream(root / path).rdbuf();
    for (const std::string& fault : faults(path, text.str())) ADD_FAILURE() << fault;
  }
}

struct Case {
  const char* path;
  const char* text;
  const char* fault;  // part of the one expected message; empty: the file is right
};

TEST(Layering, FabricatedFilesAreJudged) {
  const Case cases[] = {
      // Right arrows.
      {"runtime/ops/a.cpp", "#include \"runtime/core/tensor.h\"\n", ""},
      {"runtime/ops/a.cpp", "#include <fmt/core.h>\n#include <vector>\n", ""},
      {"runtime/backend/cpu/dense/a.cpp", "#include \"runtime/backend/cpu/b.h\"\n", ""},
      {"runtime/backend/ref/a.cpp", "#include \"runtime/backend/kernel.h\"\n", ""},
      {"runtime/runtime.cpp", "#include \"runtime/backend/cpu/table.h\"\n", ""},
      {"nets/unetr_pp/net.cpp", "#include \"runtime/nn/conv.h\"\n", ""},
      {"experiments/run/a.h", "#pragma once\n#include <nlohmann/json_fwd.hpp>\n", ""},
      {"experiments/run/a.cpp", "#include <nlohmann/json.hpp>\n#include \"nets/zoo.h\"\n", ""},
      {"runtime/core/a.cpp", "// #include \"nets/zoo.h\"\n", ""},
      // Wrong arrows, in every way of writing one.
      {"runtime/core/a.cpp", "#include \"runtime/ops/conv.h\"\n", "runtime/core must not see"},
      {"runtime/ops/a.cpp", "\n  #  include\t\"runtime/autograd/tape.h\"\n", "a.cpp:2: "},
      {"runtime/ops/a.cpp", "#include <runtime/backend/cpu/a.h>\n", "see runtime/backend/cpu"},
      {"runtime/nn/a.cpp", "#include \"runtime/backend/kernel.h\"\n", "see runtime/backend"},
      {"runtime/backend/cpu/a.cpp", "#include \"runtime/backend/ref/b.h\"\n", "wrong arrow"},
      {"runtime/backend/ref/a.cpp", "#include \"runtime/nn/conv.h\"\n", "wrong arrow"},
      {"runtime/io/a.cpp", "#include \"runtime/ops/conv.h\"\n", "wrong arrow"},
      {"runtime/train/a.cpp", "#include \"nets/zoo.h\"\n", "runtime/train must not see nets"},
      {"nets/zoo.cpp", "#include \"experiments/run/run.h\"\n", "nets must not see experiments"},
      {"nets/dae_former/net.cpp", "#include \"runtime/train/loss.h\"\n", "wrong arrow"},
      {"nets/dae_former/net.cpp", "#include \"runtime/runtime.h\"\n", "nets must not see runtime"},
      {"experiments/a.cpp", "#include \"runtime/backend/cpu/a.h\"\n", "wrong arrow"},
      // Paths and folders that nobody placed.
      {"runtime/ops/a.cpp", "#include \"conv.h\"\n", "from the repository root"},
      {"runtime/ops/a.cpp", "#include \"../core/tensor.h\"\n", "from the repository root"},
      {"runtime/ops/a.cpp", "#include <runtime/ops/../nn/a.h>\n", "from the repository root"},
      {"runtime/ops/a.cpp", "#include \"runtime/new_folder/a.h\"\n", "from the repository root"},
      {"runtime/new_folder/a.cpp", "", "no layer holds it"},
      // What a header must keep to.
      {"runtime/core/a.h", "#include <vector>\n", "without #pragma once"},
      {"runtime/core/a.h", "#pragma once\n#include <fmt/core.h>\n", "fmt/core.h is too heavy"},
      {"nets/zoo.h", "#pragma once\n#include <gtest/gtest.h>\n", "too heavy"},
      {"experiments/a.h", "#pragma once\n#include <nlohmann/json.hpp>\n", "too heavy"},
      {"experiments/a.h", "#pragma once\n#include <toml++/toml.h>\n", "too heavy"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(std::string(c.path) + ": " + c.text);
    const std::vector<std::string> found = faults(c.path, c.text);
    if (std::string_view(c.fault).empty()) {
      EXPECT_TRUE(found.empty()) << found.front();
    } else {
      ASSERT_EQ(found.size(), 1u);
      EXPECT_NE(found[0].find(c.fault), std::string::npos) << found[0];
    }
  }
}

TEST(Layering, LongFilesAreFlagged) {
  EXPECT_TRUE(faults("runtime/core/a.cpp", std::string(600, '\n')).empty());
  EXPECT_EQ(faults("runtime/core/a.cpp", std::string(601, '\n')),
            std::vector<std::string>{"runtime/core/a.cpp: 601 lines; at most 600"});
}

}  // namespace
}  // namespace voxlab
