// Reading dataset.json and finding the files of each case.
#include "experiments/data/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "experiments/data/raster.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"

namespace voxlab {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

std::optional<int64_t> whole_number(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool usable_id(std::string_view id) {
  return !id.empty() && id.front() != '.' &&
         id.find_first_of("/\\\n\r\t") == std::string_view::npos;
}

bool file_exists(const fs::path& file) {
  std::error_code error;
  return fs::exists(file, error);
}

std::string channel_suffix(size_t channel) { return fmt::format("_{:04}", channel); }

// Removes "_0000" and the like; false when there is none.
bool strip_channel_suffix(std::string& stem) {
  if (stem.size() < 6 || stem[stem.size() - 5] != '_') return false;
  if (!std::all_of(stem.end() - 4, stem.end(), [](char c) { return c >= '0' && c <= '9'; }))
    return false;
  stem.resize(stem.size() - 5);
  return true;
}

class Reader {
 public:
  explicit Reader(const fs::path& root) : file_(root / "dataset.json") { data_.root = root; }

  Dataset read() {
    const auto bytes = FileBytes::open(file_);
    try {
      json_ = json::parse(as_text(bytes->bytes()));
    } catch (const json::exception& error) {
      fail(where(), error.what());
    }
    if (!json_.is_object()) fail(where(), "expected an object");
    data_.name =
        json_.contains("name") ? text(json_["name"], "name") : data_.root.filename().string();
    read_channels();
    read_labels();
    read_label_values();
    if (json_.contains("file_ending")) ending_ = text(json_["file_ending"], "file_ending");
    read_patterns();
    data_.train = read_split("train.txt", "training");
    data_.test = read_split("test.txt", "test");
    check_split();
    return std::move(data_);
  }

 private:
  std::string where() const { return file_.string(); }
  std::string text(const json& value, const std::string& key) const {
    if (!value.is_string()) fail(where(), fmt::format("'{}': expected a string", key));
    return value.get<std::string>();
  }

  void read_channels() {
    const char* key = json_.contains("channel_names") ? "channel_names" : "modality";
    if (!json_.contains(key) || !json_[key].is_object() || json_[key].empty())
      fail(where(), "expected 'channel_names' or 'modality', an object like {\"0\": \"MRI\"}");
    const json& names = json_[key];
    for (size_t c = 0; c < names.size(); ++c) {
      const std::string index = std::to_string(c);
      if (!names.contains(index))
        fail(where(),
             fmt::format("'{}' has {} entries but none called \"{}\"", key, names.size(), index));
      data_.channels.push_back(text(names[index], key));
    }
  }

  void add_class(const std::string& name, int64_t value) {
    for (const LabelClass& each : data_.classes)
      if (each.value == value) fail(where(), fmt::format("label value {} has two names", value));
    data_.classes.push_back({name, value});
  }

  // v1 maps value to name, v2 name to value or, for regions, to a list of values.
  void read_labels() {
    if (!json_.contains("labels") || !json_["labels"].is_object())
      fail(where(), "expected 'labels', an object");
    for (const auto& [key, value] : json_["labels"].items()) {
      if (value.is_string()) {
        const auto number = whole_number(key);
        if (!number) fail(where(), fmt::format("'labels': '{}' is not a label value", key));
        add_class(value.get<std::string>(), *number);
      } else if (value.is_number_integer()) {
        if (key == "ignore") fail(where(), "'labels': an ignore label is not supported");
        add_class(key, value.get<int64_t>());
      } else if (value.is_array()) {
        LabelRegion region{.name = key, .values = {}};
        for (const json& each : value) {
          if (!each.is_number_integer())
            fail(where(), fmt::format("'labels': region '{}' must list whole numbers", key));
          region.values.push_back(each.get<int64_t>());
        }
        data_.regions.push_back(std::move(region));
      } else {
        fail(where(), fmt::format("'labels': '{}' has neither a name, a value nor a list", key));
      }
    }
    add_region_values();
    sort_classes();
    if (data_.classes.empty() || data_.classes.front().value != 0)
      fail(where(), "'labels': the lowest value must be 0, the background");
    if (data_.classes.size() > 256)
      fail(where(), "'labels': more than 256 classes are not supported");
  }

  void sort_classes() {
    std::sort(data_.classes.begin(), data_.classes.end(),
              [](const LabelClass& a, const LabelClass& b) { return a.value < b.value; });
  }

  // From the numbers of "labels" to those that stand in label files.
  void read_label_values() {
    if (!json_.contains("label_values")) return;
    const json& table = json_["label_values"];
    std::map<int64_t, int64_t> in_files;
    if (!table.is_object()) fail(where(), "'label_values': expected an object");
    for (const auto& [key, value] : table.items()) {
      const auto stored = whole_number(key);
      if (!stored || !value.is_number_integer())
        fail(where(),
             fmt::format("'label_values': expected \"VALUE IN FILES\": LABEL, got '{}'", key));
      if (!in_files.emplace(value.get<int64_t>(), *stored).second)
        fail(where(), fmt::format("'label_values': two values in files stand for label {}",
                                  value.get<int64_t>()));
    }
    const auto translate = [&](int64_t& value) {
      const auto found = in_files.find(value);
      if (found == in_files.end())
        fail(where(), fmt::format("'label_values': label {} is not among them", value));
      value = found->second;
    };
    for (LabelClass& each : data_.classes) translate(each.value);
    for (LabelRegion& region : data_.regions)
      for (int64_t& value : region.values) translate(value);
    if (data_.classes.front().value != 0)
      fail(where(), "'label_values': the background must be 0 in files");
    sort_classes();
    if (data_.classes.front().value != 0)
      fail(where(), "'label_values': values below 0, the background");
  }

  // Where the files of a case are, when the folder keeps neither layout's names.
  void read_patterns() {
    if (!json_.contains("file_pattern")) return;
    const json& table = json_["file_pattern"];
    const auto pattern = [&](const char* key) {
      if (!table.is_object() || !table.contains(key))
        fail(where(), fmt::format("'file_pattern': expected an object with '{}'", key));
      const std::string found = text(table[key], fmt::format("file_pattern.{}", key));
      const size_t id = found.find("{id}");
      if (id == std::string::npos || found.find("{id}", id + 1) != std::string::npos ||
          found.find('/', id) != std::string::npos)
        fail(where(),
             fmt::format("'file_pattern.{}': expected {{id}} once, in the file's name, got '{}'",
                         key, found));
      return inside(found).string();
    };
    image_pattern_ = pattern("image");
    label_pattern_ = pattern("label");
  }

  static std::string filled(std::string pattern, const std::string& id) {
    return pattern.replace(pattern.rfind("{id}"), 4, id);
  }

  // Values that occur in regions only are classes of their own.
  void add_region_values() {
    std::set<int64_t> known;
    for (const LabelClass& each : data_.classes) known.insert(each.value);
    for (const LabelRegion& region : data_.regions)
      for (int64_t value : region.values)
        if (known.insert(value).second)
          data_.classes.push_back({fmt::format("label {}", value), value});
  }

  // A path as dataset.json gives it, inside the folder.
  fs::path inside(const std::string& listed) const {
    const fs::path relative = fs::path(listed).lexically_normal();
    if (relative.is_absolute() || relative.empty() || *relative.begin() == "..")
      fail(where(), fmt::format("path '{}' leaves the dataset's folder", listed));
    return data_.root / relative;
  }

  std::vector<DatasetCase> read_split(const char* list_name, const char* key) {
    const fs::path list = data_.root / list_name;
    const bool training = std::string_view(key) == "training";
    std::vector<DatasetCase> cases;
    if (file_exists(list)) {
      for (const std::string& id : read_case_list(list))
        cases.push_back(find_case(id, list.string(), training));
    } else if (json_.contains(key)) {
      if (!json_[key].is_array()) fail(where(), fmt::format("'{}': expected a list", key));
      for (const json& entry : json_[key]) cases.push_back(listed_case(entry, key));
    } else if (image_pattern_.empty()) {
      const char* folder = training ? "imagesTr" : "imagesTs";
      for (const std::string& id : ids_in(data_.root / folder))
        cases.push_back(find_case(id, (data_.root / folder).string(), training));
    } else if (training) {
      fail(where(), fmt::format("'file_pattern' needs the list of cases {}", list.string()));
    }
    return cases;
  }

  // An entry of v1's lists: a path, or {"image": path, "label": path}. nnU-Net v1 lists ID.nii.gz
  // there even where the files are called ID_0000.nii.gz.
  DatasetCase listed_case(const json& entry, const std::string& key) const {
    const bool pair = entry.is_object() && entry.contains("image");
    if (!pair && !entry.is_string())
      fail(where(),
           fmt::format("'{}': expected a path or {{\"image\": ..., \"label\": ...}}", key));
    const fs::path image = inside(text(pair ? entry["image"] : entry, key));
    const std::string file_name = image.filename().string();
    const std::string ending =
        ends_with(file_name, ".nii.gz") ? ".nii.gz" : image.extension().string();
    DatasetCase found;
    found.id = file_name.substr(0, file_name.size() - ending.size());
    if (!file_exists(image)) {
      std::string id = found.id;
      if (file_exists(image.parent_path() / (id + channel_suffix(0) + ending)))
        found.images = channel_files(image.parent_path(), id, ending);
    }
    if (found.images.empty()) found.images = {image};
    if (pair && entry.contains("label")) found.label = inside(text(entry["label"], key));
    if (!usable_id(found.id))
      fail(where(), fmt::format("'{}': '{}' gives no case id", key, file_name));
    if (key == "training") {
      if (found.label.empty()) fail(where(), fmt::format("case {} has no label", found.id));
      require(found.images.front(), found.id);
      require(found.label, found.id);
    }
    return found;
  }

  void require(const fs::path& file, const std::string& id) const {
    if (!file_exists(file)) fail(where(), fmt::format("case {}: {} is missing", id, file.string()));
  }

  std::vector<fs::path> channel_files(const fs::path& folder, const std::string& id,
                                      const std::string& ending) const {
    std::vector<fs::path> files;
    // nnU-Net calls an RGB file, which has every channel, ID_0000.png.
    const fs::path first = folder / (id + channel_suffix(0) + ending);
    if (is_raster(first) && !file_exists(folder / (id + channel_suffix(1) + ending)))
      return {first};
    for (size_t c = 0; c < data_.channels.size(); ++c) {
      files.push_back(folder / (id + channel_suffix(c) + ending));
      if (!file_exists(files.back()))
        fail(where(), fmt::format("case {}: {} is missing (channel {}, {})", id,
                                  files.back().string(), c, data_.channels[c]));
    }
    return files;
  }

  std::vector<std::string> ids_in(const fs::path& folder) const {
    std::set<std::string> ids;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      std::string stem = entry.path().filename().string();
      if (!ends_with(stem, ending_)) continue;
      stem.resize(stem.size() - ending_.size());
      strip_channel_suffix(stem);
      if (usable_id(stem)) ids.insert(stem);
    }
    return {ids.begin(), ids.end()};
  }

  DatasetCase find_case(const std::string& id, const std::string& listed_in, bool training) const {
    DatasetCase found{.id = id, .images = {}, .label = {}};
    std::string tried;
    if (!image_pattern_.empty()) {
      const fs::path image = filled(image_pattern_, id), label = filled(label_pattern_, id);
      if (!file_exists(image))
        fail(listed_in, fmt::format("case {} has no image; tried {}", id, image.string()));
      if (file_exists(label)) found.label = label;
      if (training && found.label.empty())
        fail(listed_in, fmt::format("case {}: its label {} is missing", id, label.string()));
      found.images = {image};
      return found;
    }
    for (const char* part : {"Tr", "Ts"}) {
      const fs::path folder = data_.root / (std::string("images") + part);
      const fs::path whole = folder / (id + ending_);
      const fs::path first = folder / (id + channel_suffix(0) + ending_);
      tried += (tried.empty() ? "" : ", ") + whole.string() + ", " + first.string();
      if (file_exists(whole)) {
        found.images = {whole};
      } else if (file_exists(first)) {
        found.images = channel_files(folder, id, ending_);
      } else {
        continue;
      }
      const fs::path label = data_.root / (std::string("labels") + part) / (id + ending_);
      if (file_exists(label)) {
        found.label = label;
      } else if (training) {
        fail(listed_in, fmt::format("case {}: its label {} is missing", id, label.string()));
      }
      return found;
    }
    fail(listed_in, fmt::format("case {} has no image; tried {}", id, tried));
  }

  void check_split() const {
    std::set<std::string> ids;
    for (const DatasetCase& each : data_.train)
      if (!ids.insert(each.id).second)
        fail(where(), fmt::format("case {} is listed twice", each.id));
    for (const DatasetCase& each : data_.test)
      if (!ids.insert(each.id).second)
        fail(where(), fmt::format("case {} is both a training and a test case, or a test case "
                                  "twice",
                                  each.id));
  }

  fs::path file_;
  json json_;
  Dataset data_;
  std::string ending_ = ".nii.gz";
  std::string image_pattern_, label_pattern_;  // whole paths; empty: the layouts' names
};

}  // namespace

Dataset read_dataset(const fs::path& root) { return Reader(root).read(); }

std::vector<std::string> read_case_list(const fs::path& file) {
  const auto bytes = FileBytes::open(file);
  std::string_view rest = as_text(bytes->bytes());
  std::vector<std::string> ids;
  std::map<std::string, int> lines;
  for (int line = 1; !rest.empty(); ++line) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view text = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const size_t first = text.find_first_not_of(" \t\r");
    if (first == std::string_view::npos) continue;
    text = text.substr(first, text.find_last_not_of(" \t\r") + 1 - first);
    const std::string where = fmt::format("{}:{}", file.string(), line);
    if (!usable_id(text)) fail(where, printable(text) + " is not a case id");
    const auto [known, is_new] = lines.emplace(text, line);
    if (!is_new) fail(where, fmt::format("case {} stands in line {} already", text, known->second));
    ids.emplace_back(text);
  }
  return ids;
}

}  // namespace voxlab
