# Writes OUT, which defines build_revision(): git's description of SOURCE, with -dirty for changed files
# and -emulated where EMULATED is set.
# Run at every build; the file is touched only when the answer changed.
set(revision "")
find_package(Git QUIET)
if(Git_FOUND)
  execute_process(COMMAND ${GIT_EXECUTABLE} describe --always --dirty --abbrev=12
                  WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE revision ERROR_QUIET
                  OUTPUT_STRIP_TRAILING_WHITESPACE)
endif()
if(revision STREQUAL "")
  set(revision unknown)
endif()
if(EMULATED)
  string(APPEND revision "-emulated")  # no record of such a build tells of a machine's speed
endif()
file(CONFIGURE OUTPUT ${OUT} @ONLY CONTENT [[
#include <string_view>

namespace voxlab {
std::string_view build_revision();
std::string_view build_revision() { return "@revision@"; }
}  // namespace voxlab
]])
