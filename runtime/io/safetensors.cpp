// The format: https://github.com/huggingface/safetensors#format
#include "runtime/io/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <unordered_set>

#include "runtime/core/error.h"
#include "runtime/io/file.h"

namespace voxlab {
namespace {

constexpr uint64_t longest_header = 100'000'000;  // the reference implementation's limit
constexpr std::string_view metadata_key = "__metadata__";

// Takes the header as a stream of events: a document tree would already have merged repeated keys
// and could be nested without bound. Three levels exist: the names, the fields of one, the numbers
// of a field.
class HeaderHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderHandler(const std::string& where) : where_(where) {}

  std::vector<SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;

  bool null() override { refuse("null"); }
  bool boolean(bool) override { refuse("a boolean"); }
  bool number_integer(number_integer_t) override { refuse("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    refuse("a fraction or huge number");
  }
  bool binary(binary_t&) override { refuse("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (depth_ != 3) refuse("a number");
    numbers_.push_back(value);
    return true;
  }
  bool string(string_t& text) override {
    if (depth_ != 2) refuse("a string");
    if (in_metadata_) {
      if (!metadata.emplace(field_, text).second) refuse("a repeated key");
    } else if (field_ == "dtype" && !type_) {
      type_ = element_from_safetensors(text);
      if (!type_)
        fail(where_, fmt::format("tensor {} has dtype {}", printable(name_), printable(text)));
    } else {
      refuse("a string");
    }
    return true;
  }
  bool start_object(size_t) override {
    if (depth_ > 1) refuse("an object");
    if (++depth_ == 2) {
      in_metadata_ = name_ == metadata_key;
      type_.reset();
      shape_.reset();
      range_.reset();
    }
    return true;
  }
  bool key(string_t& text) override {
    if (depth_ == 1) {
      name_ = text;
      if (!names_.insert(text).second)
        fail(where_, fmt::format("the name {} comes twice", printable(text)));
    } else {
      field_ = text;
    }
    return true;
  }
  bool end_object() override {
    if (depth_-- == 2 && !in_metadata_) add_entry();
    return true;
  }
  bool start_array(size_t) override {
    if (depth_ != 2 || in_metadata_ || !pending_list()) refuse("a list");
    ++depth_;
    numbers_.clear();
    return true;
  }
  bool end_array() override {
    --depth_;
    (field_ == "shape" ? shape_ : range_) = numbers_;
    return true;
  }
  bool parse_error(size_t at, const std::string& token,
                   const nlohmann::detail::exception&) override {
    fail(where_, fmt::format("the header is not valid JSON in UTF-8 at its byte {}, near {}", at,
                             printable(token)));
  }

 private:
  bool pending_list() const {
    return (field_ == "shape" && !shape_) || (field_ == "data_offsets" && !range_);
  }
  [[noreturn]] void refuse(const char* what) const {
    if (depth_ == 0) fail(where_, fmt::format("the header is {}, expected an object", what));
    fail(where_, depth_ == 1 ? fmt::format("header entry {} is {}, expected an object",
                                           printable(name_), what)
                             : fmt::format("{} in field {} of header entry {}", what,
                                           printable(field_), printable(name_)));
  }
  void add_entry() {
    const std::string where = fmt::format("{}: tensor {}", where_, printable(name_));
    if (!type_ || !shape_ || !range_ || range_->size() != 2)
      fail(where, "dtype, shape and two data_offsets are needed");
    if (shape_->size() > Shape::max_rank)
      fail(where, fmt::format("rank {}; at most {} axes are supported", shape_->size(),
                              Shape::max_rank));
    SafetensorsEntry entry{.name = name_, .type = *type_, .shape = {}, .begin = (*range_)[0],
                           .end = (*range_)[1]};
    uint64_t bytes = static_cast<uint64_t>(size_of(*type_));
    bool overflow = false, empty = false;
    for (uint64_t size : *shape_) {
      if (size > INT64_MAX) fail(where, fmt::format("size {}", size));
      entry.shape.push_back(static_cast<int64_t>(size));
      if (size == 0) empty = true;
      else overflow |= __builtin_mul_overflow(bytes, size, &bytes);
    }
    if (overflow || bytes > INT64_MAX) fail(where, "the product of its sizes overflows 64 bits");
    if (empty) bytes = 0;
    if (entry.begin > entry.end || entry.end - entry.begin != bytes)
      fail(where, fmt::format("data_offsets [{}, {}] for {} bytes of {} {}", entry.begin, entry.end,
                              bytes, safetensors_name(entry.type), entry.shape.to_string()));
    entries.push_back(std::move(entry));
  }

  const std::string& where_;
  int depth_ = 0;
  bool in_metadata_ = false;
  std::string name_, field_;
  std::unordered_set<std::string> names_;
  std::optional<ElementType> type_;
  std::optional<std::vector<uint64_t>> shape_, range_;
  std::vector<uint64_t> numbers_;
};

// The tensors must cover the data block exactly: no gap, no overlap, no rest.
void check_cover(const std::vector<SafetensorsEntry>& entries, uint64_t size,
                 const std::string& where) {
  std::vector<const SafetensorsEntry*> order;
  for (const SafetensorsEntry& entry : entries) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  uint64_t covered = 0;
  for (const SafetensorsEntry* entry : order) {
    if (entry->end > size)
      fail(where, fmt::format("tensor {} ends at byte {} of {}", printable(entry->name), entry->end,
                              size));
    if (entry->begin != covered)
      fail(where, fmt::format("tensor {} begins at byte {}, the one before ends at {}: {}",
                              printable(entry->name), entry->begin, covered,
                              entry->begin < covered ? "they overlap" : "a gap"));
    covered = entry->end;
  }
  if (covered != size)
    fail(where, fmt::format("{} bytes follow the last tensor", size - covered));
}

}  // namespace

bool is_safetensors(ByteSpan bytes) {
  if (bytes.size() < 9 || bytes[8] != std::byte{'{'}) return false;
  return ByteReader(bytes, "").u64() <= bytes.size() - 8;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : SafetensorsFile(FileBytes::open(path)) {}

SafetensorsFile::SafetensorsFile(std::shared_ptr<const FileBytes> file) : file_(std::move(file)) {
  const std::string& where = file_->name();
  ByteReader in(file_->bytes(), where);
  if (in.remaining() < 8) fail(where, "shorter than the 8 bytes of a safetensors header length");
  const uint64_t length = in.u64();
  if (length > in.remaining() || length > longest_header)
    fail(where, fmt::format("a header of {} bytes in a file of {}", length, file_->bytes().size()));
  const std::string_view header = as_text(in.take(length));
  if (!header.starts_with('{')) fail(where, "the header does not begin with '{'");
  HeaderHandler handler(where);
  nlohmann::json::sax_parse(header.begin(), header.end(), &handler);
  entries_ = std::move(handler.entries);
  metadata_ = std::move(handler.metadata);
  data_ = in.take(in.remaining());
  check_cover(entries_, data_.size(), where);
}

Tensor SafetensorsFile::read(const std::string& name) const {
  for (const SafetensorsEntry& entry : entries_)
    if (entry.name == name) return read(entry);
  fail(file_->name(), fmt::format("no tensor is named {}", printable(name)));
}

Tensor SafetensorsFile::read(const SafetensorsEntry& entry) const {
  const ElementLayout dense{.type = entry.type, .shape = entry.shape,
                            .strides = contiguous_strides(entry.shape), .offset = 0};
  return copy_elements(data_.subspan(entry.begin, entry.end - entry.begin), dense);
}

NamedTensors SafetensorsFile::read_all() const {
  NamedTensors out;
  out.metadata = metadata_;
  for (const SafetensorsEntry& entry : entries_) out.add(entry.name, read(entry), entry.type);
  return out;
}

void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors) {
  const std::vector<NamedTensor>& items = tensors.items();
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return size_of(items[a].tensor.dtype()) > size_of(items[b].tensor.dtype());
  });
  std::vector<int64_t> begin(items.size());
  int64_t end = 0;
  for (size_t i : order) {
    begin[i] = end;
    end += items[i].tensor.bytes();
  }
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!tensors.metadata.empty()) header[std::string(metadata_key)] = tensors.metadata;
  for (size_t i = 0; i < items.size(); ++i) {
    const auto& [name, tensor, stored] = items[i];
    if (name == metadata_key || !is_utf8(name))
      fail(path.string(), fmt::format("{} cannot be the name of a tensor", printable(name)));
    header[name] = {{"dtype", safetensors_name(element_type(tensor.dtype()))},
                    {"shape", std::vector<int64_t>(tensor.shape().begin(), tensor.shape().end())},
                    {"data_offsets", {begin[i], begin[i] + tensor.bytes()}}};
  }
  for (const auto& [key, value] : tensors.metadata)
    if (!is_utf8(key) || !is_utf8(value))
      fail(path.string(), fmt::format("metadata {} is not UTF-8", printable(key)));
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data begin at a multiple of 8
  const uint64_t length = text.size();
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (size_t i : order) {
    const Tensor& tensor = items[i].tensor;
    const Tensor dense = tensor.contiguous() ? tensor : tensor.clone();
    file.write({dense.raw(), static_cast<size_t>(dense.bytes())});
  }
  file.commit();
}

}  // namespace voxlab
