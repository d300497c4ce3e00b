// NamedTensors: an ordered set of named tensors, and the reader of any format. Axes are in the
// file's own order (PyTorch's: channels first); whoever knows the network permutes them.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/core/tensor.h"
#include "runtime/io/element.h"

namespace voxlab {

struct NamedTensor {
  std::string name;
  Tensor tensor;
  ElementType stored;  // what the file held: i16 and i8 are i32 in the tensor
};

class NamedTensors {
 public:
  // Error when the name is taken.
  void add(const std::string& name, const Tensor& tensor);
  void add(const std::string& name, const Tensor& tensor, ElementType stored);

  const std::vector<NamedTensor>& items() const { return items_; }
  size_t size() const { return items_.size(); }
  const Tensor* find(const std::string& name) const;  // null when there is none
  const Tensor& at(const std::string& name) const;    // Error when there is none

  std::map<std::string, std::string> metadata;  // safetensors' __metadata__
  std::vector<std::string> ignored;             // entries of a state_dict that are no tensors

 private:
  std::vector<NamedTensor> items_;
  std::unordered_map<std::string, size_t> index_;
};

struct ReadOptions {
  bool strip_module_prefix = false;  // see StateDictOptions
  bool verify_crc = true;            // see TorchOptions
};

class FileBytes;

// Reads safetensors, torch zip or legacy torch, told apart by content. Error with the reason
// otherwise; a download page or a git-lfs pointer in place of the file is named as such.
NamedTensors read_tensors(const std::filesystem::path& path, const ReadOptions& options = {});
NamedTensors read_tensors(std::shared_ptr<const FileBytes> file, const ReadOptions& options = {});

}  // namespace voxlab
