// The table of counting tools: every network of the records by every rule, ours beside the tool's own
// figure and the published one.
#pragma once

#include <filesystem>
#include <string>

namespace voxlab {

// Markdown of all counts.json below `folder`, in the order of their paths.
std::string count_table(const std::filesystem::path& folder);

}  // namespace voxlab
