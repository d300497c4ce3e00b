// Checkpoints of torch.save: what is read, what is refused, and what the refusal says.
#include "runtime/io/torch_file.h"

#include <gtest/gtest.h>

#include "tests/io/archive.h"

namespace voxlab {
namespace {

using test::error_of;
using test::golden_folder;
using test::pickled;
using test::pickled_storage;
using test::read_pickled;
using namespace std::string_literals;

std::string refusal(const std::string& file) {
  return error_of([&] { read_tensors(golden_folder() / file); });
}

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST(TorchFile, ControlsHoldZeroToFive) {
  for (const char* name : {"control_writer.pth", "control_zip.pth", "control_legacy.pth"}) {
    const NamedTensors tensors = read_tensors(golden_folder() / "hostile" / name);
    ASSERT_EQ(tensors.size(), 1u) << name;
    EXPECT_EQ(tensors.at("w").to_vector(), (std::vector<double>{0, 1, 2, 3, 4, 5})) << name;
    EXPECT_EQ(tensors.at("w").dtype(), DType::f32);
  }
  EXPECT_EQ(read_tensors(golden_folder() / "hostile/control_writer.pth").at("w").shape(),
            (Shape{2, 3}));
}

TEST(TorchFile, RefusalsNameFileAndCause) {
  expect_contains(refusal("hostile/reduce_os_system.pth"), "hostile/reduce_os_system.pth");
  expect_contains(refusal("hostile/reduce_os_system.pth"), "'posix.system'");
  expect_contains(refusal("hostile/dotted_stack_global.pth"), "'torch.os.system'");
  expect_contains(refusal("hostile/whole_module.pth"), "save its state_dict() instead");
  expect_contains(refusal("hostile/zip_torchscript.pth"), "TorchScript");
  expect_contains(refusal("hostile/text_file.pth"), "git-lfs pointer");
  expect_contains(refusal("hostile/html_file.pth"), "HTML");
  expect_contains(refusal("hostile/zip_crc_wrong.pth"), "CRC-32");
  expect_contains(refusal("hostile/legacy_truncated_1.pth"),
                  "24 more bytes are needed, 23 are left");
  expect_contains(refusal("hostile/shape_huge_stride0.pth"), "4398046511104");
  expect_contains(refusal("hostile/legacy_view_out_of_range.pth"),
                  "storage view of 100 elements at 4 in a storage of 6");
  expect_contains(refusal("no_such_file.pth"), "cannot open");
}

TEST(TorchFile, ChecksumsCanBeLeftOut) {
  const auto path = golden_folder() / "hostile/zip_crc_wrong.pth";
  EXPECT_EQ(read_tensors(path, {.verify_crc = false}).size(), 7u);
}

TEST(TorchFile, ModulePrefixIsStrippedOnlyWhenAsked) {
  const auto path = golden_folder() / "data_parallel.pth";
  EXPECT_NE(read_tensors(path).find("module.stem.0.weight"), nullptr);
  EXPECT_NE(read_tensors(path, {.strip_module_prefix = true}).find("stem.0.weight"), nullptr);
  // Not when a name lacks it: the rest would change its meaning.
  const std::string dict = "}(" + pickled("module.a") + "ctorch._utils\n_rebuild_tensor_v2\nq\1(" +
                           pickled_storage(6) + "K\0K\6\x85K\1\x85\x89}tRq\2"s + pickled("b") +
                           "h\2u";
  const NamedTensors mixed = state_dict(read_pickled(dict), {.strip_module_prefix = true});
  EXPECT_NE(mixed.find("module.a"), nullptr);
}

TEST(TorchFile, StateDictIsFoundBelowTheRoot) {
  const Value root = read_torch(golden_folder() / "nnunet_style.model");
  const NamedTensors tensors = state_dict(root);
  EXPECT_EQ(tensors.size(), 10u);
  EXPECT_EQ(tensors.items()[0].name, "encoder.0.weight");
  EXPECT_EQ(root.find("epoch")->as_integer(), 3);
  const Value group = root.find("optimizer_state_dict")->find("param_groups")->at(0);
  EXPECT_EQ(group.find("momentum")->as_real(), 0.99);
  EXPECT_TRUE(group.find("foreach")->is(ValueKind::none));
  const Value best = root.find("best_stuff")->at(2);
  EXPECT_EQ(best.as_real(), 0.8512);
  EXPECT_EQ(best.numpy_type(), ElementType::f64);
}

TEST(TorchFile, TiedNamesShareOneTensor) {
  // Two names of one view; t_tied_view is a part of it, and so a tensor of its own.
  const NamedTensors tensors = read_tensors(golden_folder() / "small_zip.pth");
  EXPECT_EQ(tensors.at("exotic.t_tied_a").id(), tensors.at("exotic.t_tied_b").id());
  EXPECT_NE(tensors.at("exotic.t_tied_a").id(), tensors.at("exotic.t_tied_view").id());
  // t_tied_view starts at element 8 of t_tied_a.
  const std::vector<double> whole = tensors.at("exotic.t_tied_a").to_vector();
  const std::vector<double> part = tensors.at("exotic.t_tied_view").to_vector();
  EXPECT_EQ(part, std::vector<double>(whole.begin() + 8, whole.begin() + 20));
}

TEST(TorchFile, SmallIntegersWiden) {
  const NamedTensors tensors = read_tensors(golden_folder() / "small_zip.pth");
  for (const NamedTensor& item : tensors.items())
    if (item.name == "exotic.t_int8") {
      EXPECT_EQ(item.stored, ElementType::i8);
      EXPECT_EQ(item.tensor.dtype(), DType::i32);
      EXPECT_EQ(item.tensor.to_vector()[2], 101);
      EXPECT_EQ(item.tensor.to_vector()[1], -70);
    }
}

TEST(TorchFile, ValuesOutliveTheHandleTheyCameFrom) {
  Tensor bias;
  {
    const Value w = *read_torch(golden_folder() / "hostile/control_zip.pth").find("w");
    bias = w.tensor();
  }
  EXPECT_EQ(bias.to_vector()[5], 5);
}

TEST(TorchFile, PlainValues) {
  // LONG1 of -2^64 (nine bytes), BINFLOAT, SHORT_BINSTRING of text and of other bytes, frozenset.
  const Value list = read_pickled("](\x8a\x09"s + std::string(8, '\0') + "\xff" +
                                  "G\x3f\xf0\0\0\0\0\0\0"s + "U\2hi" + "U\2\xff\xfe" +
                                  "(K\1K\2\x91" + "c__builtin__\nbytes\n)R" + "e");
  ASSERT_EQ(list.size(), 6);
  EXPECT_EQ(list.at(0).as_text(), "-18446744073709551616");
  EXPECT_EQ(list.at(1).as_real(), 1.0);
  EXPECT_TRUE(list.at(2).is(ValueKind::string));
  EXPECT_TRUE(list.at(3).is(ValueKind::bytes));
  EXPECT_TRUE(list.at(4).is(ValueKind::set));
  EXPECT_EQ(list.at(5).as_text(), "");
  expect_contains(error_of([&] { list.at(6); }), "no element 6 in a list of 6");
  expect_contains(error_of([&] { list.at(0).as_integer(); }),
                  "expected an integer, found a big integer");
  expect_contains(error_of([&] { list.at(2).tensor(); }), "expected a tensor, found a string");
}

TEST(TorchFile, IntegersOfEveryLength) {
  const Value list = read_pickled("](\x8a\0"s + "\x8a\1\xff" + "\x8a\2\0\x80"s +
                                  "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f" + "J\xfe\xff\xff\xff" +
                                  "M\xff\xff" + "e");
  const std::vector<int64_t> expected{0, -1, -32768, INT64_MAX, -2, 65535};
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_EQ(list.at(static_cast<int64_t>(i)).as_integer(), expected[i]);
}

TEST(TorchFile, RepeatedKeyKeepsItsFirstPlaceAndLastValue) {
  const Value dict =
      read_pickled("}(" + pickled("a") + "K\1" + pickled("b") + "K\2" + pickled("a") + "K\3u");
  ASSERT_EQ(dict.size(), 2);
  EXPECT_EQ(dict.entry(0).first.as_text(), "a");
  EXPECT_EQ(dict.entry(0).second.as_integer(), 3);
  EXPECT_EQ(dict.find("b")->as_integer(), 2);
}

TEST(TorchFile, OrderedDictOfPython2AndOfNewObject) {
  const Value old = read_pickled("ccollections\nOrderedDict\n]]("s + pickled("a") + "K\1ea\x85R");
  EXPECT_EQ(old.find("a")->as_integer(), 1);
  EXPECT_TRUE(read_pickled("ccollections\nOrderedDict\n)\x81").is(ValueKind::dict));
}

TEST(TorchFile, UntypedStorageWithAnElementType) {
  // _rebuild_tensor_v3(storage, offset 2, sizes (2, 2), strides (2, 1), False, hooks, dtype)
  const Value value = read_pickled("ctorch._utils\n_rebuild_tensor_v3\n(" +
                                   pickled_storage(24, "torch.storage\nUntypedStorage") +
                                   "K\2K\2K\2\x86K\2K\1\x86\x89}ctorch\nfloat32\ntR");
  EXPECT_EQ(value.tensor().to_vector(), (std::vector<double>{2, 3, 4, 5}));
  EXPECT_EQ(value.layout().offset, 2);
}

TEST(TorchFile, TensorOfHigherRankThanShapesIsRefused) {
  const std::string ones = "(K\1K\1K\1K\1K\1K\1K\1t";
  expect_contains(error_of([&] {
                    read_pickled("ctorch._utils\n_rebuild_tensor_v2\n(" + pickled_storage(6) +
                                 "K\0"s + ones + ones + "\x89}tR");
                  }),
                  "rank 7; at most 6");
}

TEST(TorchFile, DeepNestingNeedsNoStack) {
  constexpr size_t depth = 1'000'000;
  const Value root = read_pickled(std::string(depth, ']') + std::string(depth - 1, 'a'));
  Value at = root;
  for (size_t i = 1; i < depth; ++i) at = at.at(0);
  EXPECT_EQ(at.size(), 0);
}

TEST(TorchFile, SharedAndCyclicValuesAreNotCopied) {
  const Value bomb = read_torch(golden_folder() / "hostile/memo_bomb.pth");
  EXPECT_TRUE(bomb.is(ValueKind::list));
  const Value cycle = read_torch(golden_folder() / "hostile/self_reference.pth");
  EXPECT_EQ(cycle.at(0).at(0).at(0).size(), 1);
}

TEST(TorchFile, CopiesOfOneLongTextAreBounded) {
  // Each _codecs.encode makes a copy of a 60 kB text: 20,000 of them would be 1.2 GB from 200 kB.
  std::string opcodes = pickled(std::string(60'000, 'x')) + "q\1" + pickled("latin1") +
                        "q\2c_codecs\nencode\nq\3";
  for (int i = 0; i < 20'000; ++i) opcodes += "h\3h\1h\2\x86R";
  expect_contains(error_of([&] { read_pickled(opcodes); }), "texts larger than the file");
}

TEST(TorchFile, ManyTinyValuesAreBounded) {
  expect_contains(error_of([&] { read_pickled(std::string(5'000'000, 'N')); }),
                  "more than 4194304 values");
}

TEST(TorchFile, ManyExpandedViewsAreBounded) {
  // Views of 4,000 elements over one float with stride 0, each at another offset so that none is
  // shared.
  std::string opcodes = "](";
  for (char offset = 0; offset < 6; ++offset)
    for (uint16_t size = 4000; size < 4010; ++size)
      opcodes += "ctorch._utils\n_rebuild_tensor_v2\n(" + pickled_storage(6) + "K" + offset + "M" +
                 test::little_endian(size) + "\x85K\0\x85\x89}tR"s;
  expect_contains(error_of([&] { read_pickled(opcodes + "e"); }), "more than 8 times the file");
}

}  // namespace
}  // namespace voxlab
