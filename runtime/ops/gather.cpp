#include "runtime/ops/gather.h"

#include "runtime/ops/call.h"

namespace voxlab {
namespace {

void check_index(std::string_view op, MetaSpan in) {
  if (in.size() != 2 || in[1].dtype != DType::i32)
    fail(op, "expected an i32 index as second input, got " + in.back().to_string());
}

}  // namespace

Metas Gather::infer(const Attrs&, MetaSpan in) {
  check_index(name, in);
  const Shape &table = in[0].shape, &index = in[1].shape;
  if (table.rank() < 1) fail(name, "table has no rows: " + in[0].to_string());
  if (index.rank() + table.rank() - 1 > Shape::max_rank)
    fail(name, "too many axes: table " + in[0].to_string() + ", index " + in[1].to_string());
  Shape y = index;
  for (int i = 1; i < table.rank(); ++i) y.push_back(table[i]);
  return {{y, in[0].dtype, in[0].device}};
}

Tensors Gather::backward(const Attrs&, const Saved& saved, const Tensors& dout) {
  return {call1<GatherGrad>({saved.in_meta(0).shape[0]}, {dout[0], saved.in(1)}), Tensor()};
}

std::vector<Sample> Gather::samples() {
  const auto index = [](Shape shape, double rows) {
    return SampleInput{.shape = shape, .low = 0, .high = rows, .integer = true, .grad = false};
  };
  return {sample<Gather>("heads", {}, {{.shape = {7, 3}}, index({4, 5}, 7)}),
          sample<Gather>("repeated", {}, {{.shape = {2, 4}}, index({31}, 2)}),
          sample<Gather>("scalars", {}, {{.shape = {6}}, index({3, 2}, 6)}),
          sample<Gather>("blocks", {}, {{.shape = {5, 2, 3}}, index({4}, 5)}),
          sample<Gather>("strided", {}, {{.shape = {3, 7}, .permuted = {1, 0}}, index({6}, 7)}),
          refused<Gather>("expected an i32 index", {}, {{.shape = {5, 2}}, {.shape = {4}}}),
          refused<Gather>("too many axes", {}, {{.shape = {2, 2, 2, 2}}, index({2, 2, 2, 2}, 2)})};
}

Metas GatherGrad::infer(const Attrs& a, MetaSpan in) {
  check_index(name, in);
  const Shape &dy = in[0].shape, &index = in[1].shape;
  bool fits = dy.rank() >= index.rank();
  for (int i = 0; fits && i < index.rank(); ++i) fits = dy[i] == index[i];
  if (!fits) fail(name, "gradient " + in[0].to_string() + " does not start with the axes of index " + in[1].to_string());
  if (a.rows < 1) fail(name, "a table of " + std::to_string(a.rows) + " rows");
  Shape table{a.rows};
  for (int i = index.rank(); i < dy.rank(); ++i) table.push_back(dy[i]);
  return {{table, in[0].dtype, in[0].device}};
}

Cost GatherGrad::cost(const Attrs&, MetaSpan in, MetaSpan) { return {.flops = in[0].numel()}; }

Tensors GatherGrad::backward(const Attrs&, const Saved& saved, const Tensors& dout) {
  return {gather(dout[0], saved.in(1)), Tensor()};
}

std::vector<Sample> GatherGrad::samples() {
  const SampleInput index{.shape = {4, 5}, .low = 0, .high = 7, .integer = true, .grad = false};
  return {sample<GatherGrad>("heads", {7}, {{.shape = {4, 5, 3}}, index}),
          sample<GatherGrad>("more rows", {9}, {{.shape = {4, 5}}, index}),
          refused<GatherGrad>("does not start with", {7}, {{.shape = {5, 4, 3}}, index}),
          refused<GatherGrad>("0 rows", {0}, {{.shape = {4, 5, 3}}, index})};
}

int64_t checked_row(std::string_view op, int64_t index, int64_t rows) {
  if (index < 0 || index >= rows)
    fail(op, "index " + std::to_string(index) + " is outside the table of " + std::to_string(rows) + " rows");
  return index;
}

Tensor gather(const Tensor& table, const Tensor& index) { return call1<Gather>({}, {table, index}); }

}  // namespace voxlab
