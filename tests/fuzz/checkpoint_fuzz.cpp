// libFuzzer entry for the checkpoint readers; not part of the normal build, which needs no clang.
// From the repository's root:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I. \
//     tests/fuzz/checkpoint_fuzz.cpp runtime/io/*.cpp runtime/core/*.cpp -lfmt -lz -lgomp \
//     -o checkpoint_fuzz
//   ./checkpoint_fuzz -max_len=8192 -max_total_time=600 corpus tests/goldens/checkpoints/hostile
#include "tests/fuzz/checkpoint_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  voxlab::test::read_checkpoint(std::as_bytes(std::span(data, size)));
  return 0;
}
