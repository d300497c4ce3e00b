// The op contract. An op is a struct on one page: Attrs, infer, cost, backward, what it saves, its
// precision policy and its samples. OpRecord is its type-erased form, made once per op by the compiler.
// See docs/adding_an_op.md.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/core/tensor.h"
#include "runtime/core/visit.h"

namespace voxlab {

// How autocast treats an op: follow its inputs, reduce them to bf16 (convolutions and products), or
// keep them in f32 (norms, softmax, losses).
enum class Precision : uint8_t { follow, reduced, full };

struct Cost {
  int64_t macs = 0;   // multiply-adds of products, convolutions; 0 for everything else
  int64_t flops = 0;  // 2 per multiply-add, plus elementwise work
  int64_t bytes = 0;  // inputs read once plus outputs written once
};

// Which inputs and outputs the backward pass reads; bit i stands for tensor i.
struct Saves {
  uint32_t inputs = 0;
  uint32_t outputs = 0;
};

// What backward gets. Reading a tensor that the op did not declare as saved is an error.
class Saved {
 public:
  Saved(std::string_view op, Tensors in, Tensors out, Metas in_metas, Metas out_metas,
        std::vector<bool> needs)
      : op_(op), in_(std::move(in)), out_(std::move(out)), in_metas_(std::move(in_metas)),
        out_metas_(std::move(out_metas)), needs_(std::move(needs)) {}

  const Tensor& in(size_t i) const { return checked(in_, in_metas_, i); }
  const Tensor& out(size_t i) const { return checked(out_, out_metas_, i); }
  const Meta& in_meta(size_t i) const { return in_metas_.at(i); }
  const Meta& out_meta(size_t i) const { return out_metas_.at(i); }
  size_t inputs() const { return in_metas_.size(); }
  bool has(size_t i) const { return i < present_.size() ? present_[i] : i < in_metas_.size(); }
  void set_present(std::vector<bool> present) { present_ = std::move(present); }
  // Whether anyone wants the gradient of input i; a backward may return an undefined tensor otherwise.
  bool needs(size_t i) const { return needs_.at(i); }

 private:
  const Tensor& checked(const Tensors& from, const Metas& metas, size_t i) const;
  std::string_view op_;
  Tensors in_, out_;
  Metas in_metas_, out_metas_;
  std::vector<bool> needs_;
  std::vector<bool> present_;
};

// A case for the generic tests: attributes and inputs to draw, or a case that must be refused.
struct SampleInput {
  Shape shape;
  double low = -1, high = 1;   // drawn uniformly
  bool integer = false;        // i32 labels in [low, high)
  bool grad = true;            // check the gradient of this input
  bool absent = false;         // an optional input left out
  std::vector<int> permuted{};  // hand over a permuted view of a contiguous tensor: not contiguous
  double gap_at_zero = 0;      // keep |x| >= this: kinks of piecewise functions have no derivative
};

struct Sample {
  std::string label;
  std::shared_ptr<const void> attrs;
  std::vector<SampleInput> inputs;
  std::string error;  // not empty: the op must refuse this with a message that contains it
  double tolerance = 1;  // multiplies the generic tolerance of the dtype
};

struct OpRecord {
  std::string_view name;
  Precision precision = Precision::follow;
  bool strided = false;  // kernels accept any strides; otherwise inputs are made contiguous first
  Metas (*infer)(const void* attrs, MetaSpan in) = nullptr;
  Cost (*cost)(const void* attrs, MetaSpan in, MetaSpan out) = nullptr;
  Saves (*saves)(const void* attrs) = nullptr;
  Tensors (*backward)(const void* attrs, const Saved& saved, const Tensors& dout) = nullptr;
  Tensors (*decompose)(const void* attrs, const Tensors& in) = nullptr;  // the same from simpler ops
  Tensors (*view)(const void* attrs, const Tensor& in) = nullptr;        // views: no kernel, no bytes
  int (*overwrites)(const void* attrs, size_t output) = nullptr;  // input that an output overwrites
  std::string (*describe)(const void* attrs) = nullptr;
  std::vector<Sample> (*samples)() = nullptr;
};

namespace detail {
class FieldPrinter {
 public:
  template <class T>
  void operator()(std::string_view name, const T& value) {
    if (!text.empty()) text += ' ';
    text += name;
    text += '=';
    put(value);
  }
  std::string text;

 private:
  void put(int64_t v) { text += std::to_string(v); }
  void put(int v) { text += std::to_string(v); }
  void put(uint64_t v) { text += std::to_string(v); }
  void put(uint32_t v) { text += std::to_string(v); }
  void put(double v);
  void put(bool v) { text += v ? "true" : "false"; }
  void put(const Shape& v) { text += v.to_string(); }
  void put(DType v) { text += name(v); }
  template <NamedEnum E>
  void put(E v) {
    text += to_string(v);
  }
  template <class T, size_t n>
  void put(const std::array<T, n>& v) {
    list(v);
  }
  template <class T>
  void put(const std::vector<T>& v) {
    list(v);
  }
  template <class List>
  void list(const List& v) {
    text += '[';
    for (size_t i = 0; i < v.size(); ++i) {
      if (i) text += ", ";
      put(v[i]);
    }
    text += ']';
  }
};

int64_t bytes_moved(MetaSpan in, MetaSpan out);

template <class Op>
const typename Op::Attrs& attrs_of(const void* attrs) {
  return *static_cast<const typename Op::Attrs*>(attrs);
}
}  // namespace detail

template <class Op>
concept OpPage = requires(const typename Op::Attrs& attrs, MetaSpan metas) {
  { Op::name } -> std::convertible_to<std::string_view>;
  { Op::infer(attrs, metas) } -> std::same_as<Metas>;
  { Op::samples() } -> std::same_as<std::vector<Sample>>;
};

// Optional members default to: precision follow, strided false, cost "bytes only", saves nothing.
template <OpPage Op>
OpRecord make_record() {
  using detail::attrs_of;
  OpRecord r;
  r.name = Op::name;
  if constexpr (requires { Op::precision; }) r.precision = Op::precision;
  if constexpr (requires { Op::strided; }) r.strided = Op::strided;
  r.infer = [](const void* a, MetaSpan in) { return Op::infer(attrs_of<Op>(a), in); };
  r.cost = [](const void* a, MetaSpan in, MetaSpan out) {
    Cost cost;
    if constexpr (requires { Op::cost(attrs_of<Op>(a), in, out); })
      cost = Op::cost(attrs_of<Op>(a), in, out);
    if (cost.bytes == 0) cost.bytes = detail::bytes_moved(in, out);
    return cost;
  };
  r.saves = [](const void* a) {
    if constexpr (requires { Op::saves(attrs_of<Op>(a)); }) {
      return Op::saves(attrs_of<Op>(a));
    } else {
      static_cast<void>(a);
      return Saves{};
    }
  };
  if constexpr (requires(const Saved& s, const Tensors& d) { Op::backward(attrs_of<Op>(nullptr), s, d); })
    r.backward = [](const void* a, const Saved& s, const Tensors& d) {
      return Op::backward(attrs_of<Op>(a), s, d);
    };
  if constexpr (requires(const Tensors& in) { Op::decompose(attrs_of<Op>(nullptr), in); })
    r.decompose = [](const void* a, const Tensors& in) { return Op::decompose(attrs_of<Op>(a), in); };
  if constexpr (requires(const Tensor& in) { Op::view(attrs_of<Op>(nullptr), in); })
    r.view = [](const void* a, const Tensor& in) { return Op::view(attrs_of<Op>(a), in); };
  if constexpr (requires { Op::overwrites(size_t{0}); })
    r.overwrites = [](const void*, size_t output) { return Op::overwrites(output); };
  r.describe = [](const void* a) {
    detail::FieldPrinter printer;
    if constexpr (requires { Op::Attrs::visit(attrs_of<Op>(a), printer); })
      Op::Attrs::visit(attrs_of<Op>(a), printer);
    return printer.text;
  };
  r.samples = [] { return Op::samples(); };
  return r;
}

template <OpPage Op>
const OpRecord& record_of() {
  static const OpRecord record = make_record<Op>();
  return record;
}

template <OpPage Op>
Sample sample(std::string label, typename Op::Attrs attrs, std::vector<SampleInput> inputs,
              double tolerance = 1) {
  return {std::move(label), std::make_shared<const typename Op::Attrs>(std::move(attrs)),
          std::move(inputs), "", tolerance};
}

template <OpPage Op>
Sample refused(std::string error, typename Op::Attrs attrs, std::vector<SampleInput> inputs) {
  return {"refuses: " + error, std::make_shared<const typename Op::Attrs>(std::move(attrs)),
          std::move(inputs), error, 1};
}

}  // namespace voxlab
