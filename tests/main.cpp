// The main of every test that runs ops: installs the backends first.
#include <gtest/gtest.h>

#include "runtime/runtime.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  voxlab::initialise_runtime();
  return RUN_ALL_TESTS();
}
