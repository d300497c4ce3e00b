// results/published/*.toml: numbers that papers and their authors printed, each table with its
// source.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "experiments/config/node.h"
#include "experiments/run/results.h"

namespace voxlab {

class PublishedTable {
 public:
  PublishedTable(std::string paper, ConfigNode table);

  const std::string& id() const { return id_; }
  const std::string& caption() const { return caption_; }
  std::vector<std::string> methods() const;  // of the rows that have one; some tables list cases

  // The figure at a row and a key of it ("params_M", "dice.Spl"), as printed there. Empty when the
  // paper's row is known but this number was found in no source; Error for an unknown method or
  // key. "METHOD [KEY=VALUE]" is the row of that name whose KEY has that value.
  std::optional<Figure> find(std::string_view method, std::string_view key) const;

 private:
  const ConfigNode& row(std::string_view method) const;
  std::string id_, caption_, paper_;
  ConfigNode table_;
};

// "unetr_pp/ablation_epa": the table of that id in <root>/unetr_pp.toml.
PublishedTable load_published(const std::filesystem::path& root, std::string_view name);

}  // namespace voxlab
