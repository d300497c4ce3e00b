#include "runtime/io/named_tensors.h"

#include "runtime/core/error.h"
#include "runtime/io/file.h"
#include "runtime/io/safetensors.h"
#include "runtime/io/torch_file.h"

namespace voxlab {
namespace {

// Why a file that is in none of the formats is there: the usual accidents first.
[[noreturn]] void refuse_unknown(const FileBytes& file) {
  const std::string_view text = as_text(file.bytes());
  const std::string_view head = text.substr(0, text.find_first_of("\r\n"));
  if (text.empty()) fail(file.name(), "the file is empty");
  if (text.starts_with("version https://git-lfs"))
    fail(file.name(), "a git-lfs pointer, not the checkpoint itself; run `git lfs pull`");
  if (text.starts_with("<"))
    fail(file.name(), "an HTML or XML page, not a checkpoint; the download did not give the file");
  fail(file.name(), "neither safetensors nor a file of torch.save; it begins with " +
                        printable(head.substr(0, 16)));
}

}  // namespace

void NamedTensors::add(const std::string& name, const Tensor& tensor) {
  add(name, tensor, element_type(tensor.dtype()));
}

void NamedTensors::add(const std::string& name, const Tensor& tensor, ElementType stored) {
  if (!index_.emplace(name, items_.size()).second)
    fail("tensors", "two tensors are named " + printable(name));
  items_.push_back({name, tensor, stored});
}

const Tensor* NamedTensors::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &items_[found->second].tensor;
}

const Tensor& NamedTensors::at(const std::string& name) const {
  const Tensor* tensor = find(name);
  if (!tensor) fail("tensors", "no tensor is named " + printable(name));
  return *tensor;
}

NamedTensors read_tensors(const std::filesystem::path& path, const ReadOptions& options) {
  return read_tensors(FileBytes::open(path), options);
}

NamedTensors read_tensors(std::shared_ptr<const FileBytes> file, const ReadOptions& options) {
  const ByteSpan bytes = file->bytes();
  // safetensors first: its leading length could begin with the bytes that mark the others.
  if (is_safetensors(bytes) || file->name().ends_with(".safetensors"))
    return SafetensorsFile(std::move(file)).read_all();
  const bool torch = as_text(bytes).starts_with("PK\x03\x04") ||
                     (!bytes.empty() && bytes[0] == std::byte{0x80});  // PROTO
  if (!torch) refuse_unknown(*file);
  const Value root = read_torch(std::move(file), {.verify_crc = options.verify_crc});
  return state_dict(root, {.strip_module_prefix = options.strip_module_prefix});
}

}  // namespace voxlab
