#include "runtime/io/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

// Closes a descriptor on every way out.
struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

}  // namespace

std::shared_ptr<const FileBytes> FileBytes::open(const std::filesystem::path& path) {
  const std::string name = path.string();
  const Descriptor file{::open(name.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.value < 0) fail(name, fmt::format("cannot open: {}", std::strerror(errno)));
  struct stat status {};
  if (::fstat(file.value, &status) != 0)
    fail(name, fmt::format("cannot stat: {}", std::strerror(errno)));
  if (!S_ISREG(status.st_mode)) fail(name, "not a regular file");
  std::shared_ptr<FileBytes> out(new FileBytes);
  out->name_ = name;
  if (status.st_size == 0) return out;  // a mapping cannot be empty
  const auto size = static_cast<size_t>(status.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.value, 0);
  if (address == MAP_FAILED) fail(name, fmt::format("cannot map: {}", std::strerror(errno)));
  out->mapped_ = true;
  out->bytes_ = {static_cast<const std::byte*>(address), size};
  return out;
}

std::shared_ptr<const FileBytes> FileBytes::copy(ByteSpan bytes, std::string name) {
  std::shared_ptr<FileBytes> out(new FileBytes);
  out->name_ = std::move(name);
  out->owned_.assign(bytes.begin(), bytes.end());
  out->bytes_ = out->owned_;
  return out;
}

FileBytes::~FileBytes() {
  if (mapped_) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path) {
  // Process and counter make the name unique among writers of the same file.
  static std::atomic<unsigned> counter{0};
  temporary_ = path;
  temporary_ += fmt::format(".tmp.{}.{}", ::getpid(), counter.fetch_add(1));
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail_errno("cannot create");
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_errno("cannot write");
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail_errno("cannot sync");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_errno("cannot rename");
  ::close(descriptor_);
  descriptor_ = -1;
  // The rename itself lasts only once its folder is synced. Some file systems refuse that: no
  // error.
  const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
  const Descriptor directory{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (directory.value >= 0) ::fsync(directory.value);
}

void AtomicFile::fail_errno(const char* what) const {
  fail(path_.string(), fmt::format("{} {}: {}", what, temporary_.string(), std::strerror(errno)));
}

}  // namespace voxlab
