// What both fuzz drivers call: any bytes must be read or refused with an Error, and nothing else
// may happen.
#pragma once

#include "runtime/core/error.h"
#include "runtime/io/file.h"
#include "runtime/io/named_tensors.h"

namespace voxlab::test {

// True when the bytes were read as tensors.
inline bool read_checkpoint(ByteSpan bytes) {
  try {
    const NamedTensors tensors = read_tensors(FileBytes::copy(bytes, "input"));
    // Touches every element, so that a copy from outside the file shows under the sanitizers.
    for (const NamedTensor& item : tensors.items()) item.tensor.to_vector();
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace voxlab::test
