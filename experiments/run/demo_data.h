// Data for trying things out, as an ordinary dataset folder (nnU-Net v2 layout): one labelled real
// brain that Debian ships, or generated phantoms.
#pragma once

#include <filesystem>
#include <string_view>

namespace voxlab {

// Whether Debian's package mricron-data is installed.
bool has_colin27();

bool is_demo_source(std::string_view source);  // "colin27" or "phantom"

// One line about the data and what a score on it can tell.
std::string_view describe_demo(std::string_view source);

// The dataset folder of a demo source below `root`, made when it is not there yet. Same bytes every
// time.
//   colin27: T1 of one adult (Holmes et al. 1998) and the AAL labels (Tzourio-Mazoyer et al. 2002),
//   merged to
//            hippocampus and amygdala, basal ganglia, thalamus. The box around them is cut in two
//            at the midline: the right half trains, the left half, mirrored to look like a right
//            one, tests.
//   phantom: ellipsoids of three kinds in noise; eight volumes train, two test.
std::filesystem::path make_demo_data(std::string_view source, const std::filesystem::path& root);

}  // namespace voxlab
