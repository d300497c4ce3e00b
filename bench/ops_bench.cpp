// Every op that is not a convolution or a product, at the shapes of UNETR++ on a 64x128x128 patch.
// GB/s counts inputs read once and outputs written once; the label is the kernel that ran.
#include <benchmark/benchmark.h>

#include "runtime/ops/all.h"
#include "runtime/ops/call.h"
#include "runtime/runtime.h"
#include "tests/support/draw.h"

namespace voxlab {
namespace {

class LastKernel : public Observer {
 public:
  void on_call(const CallEvent& event) override { name = event.kernel; }
  std::string name;
};

void run(benchmark::State& state, const OpRecord& op, const Sample& sample, DType dtype) {
  static const bool ready = (initialise_runtime(), true);
  static_cast<void>(ready);
  const Tensors in = test::draw(sample, dtype, Device::cpu, 1);
  LastKernel kernel;
  Tensors out;
  {
    Observe observe(kernel);
    out = call(op, sample.attrs, in);
  }
  Metas in_metas, out_metas;
  for (const Tensor& t : in)
    if (t) in_metas.push_back(t.meta());
  for (const Tensor& t : out) out_metas.push_back(t.meta());
  out.clear();  // its block is reused, as in a network
  for (auto _ : state) benchmark::DoNotOptimize(call(op, sample.attrs, in));
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(detail::bytes_moved(in_metas, out_metas)) * 1e-9,
                         benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(kernel.name);
}

template <class Op>
void add(const std::string& name, typename Op::Attrs attrs, std::vector<SampleInput> inputs,
         DType dtype = DType::f32) {
  const Sample s = sample<Op>(name, std::move(attrs), std::move(inputs));
  benchmark::RegisterBenchmark(
      ("ops/" + name).c_str(),
      [s, dtype](benchmark::State& state) { run(state, record_of<Op>(), s, dtype); })
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

const Shape volume{1, 64, 128, 128, 16}, logits{1, 64, 128, 128, 14}, labels{1, 64, 128, 128};

void elementwise() {
  const SampleInput x{.shape = volume}, row{.shape = {16}};
  add<Unary>("leaky_relu", {{UnaryKind::leaky_relu, 0.01}}, {x});
  add<Unary>("leaky_relu bf16", {{UnaryKind::leaky_relu, 0.01}}, {x}, DType::bf16);
  add<Unary>("gelu", {{UnaryKind::gelu}}, {x});
  add<Unary>("sigmoid", {{UnaryKind::sigmoid}}, {x});
  add<UnaryGrad>("leaky_relu_grad", {{UnaryKind::leaky_relu, 0.01}}, {x, x});
  add<UnaryGrad>("gelu_grad", {{UnaryKind::gelu}}, {x, x});
  add<Binary>("add", {BinaryKind::add}, {x, x});
  add<Binary>("add bf16", {BinaryKind::add}, {x, x}, DType::bf16);
  add<Binary>("add row", {BinaryKind::add}, {x, row});
  add<Binary>("add row 14", {BinaryKind::add}, {{.shape = logits}, {.shape = {14}}});
  add<Binary>("mul position", {BinaryKind::mul}, {x, {.shape = {1, 64, 128, 128, 1}}});
  add<Cast>("cast bf16", {DType::bf16}, {x});
  add<Dropout>("dropout", {.p = 0.1}, {x});
  add<Dropout>("dropout channels", {.p = 0.1, .unit = DropUnit::channel}, {x});
}

void copies() {
  // (B, N, h, d) -> (B, h, N, d), (B, h, d, N) and back from (B, d, h, N)
  add<Contiguous>("heads out", {}, {{.shape = {8, 32768, 4, 8}, .permuted = {0, 2, 1, 3}}});
  add<Contiguous>("tokens last", {}, {{.shape = {8, 32768, 4, 8}, .permuted = {0, 2, 3, 1}}});
  add<Contiguous>("tokens last bf16", {}, {{.shape = {8, 32768, 4, 8}, .permuted = {0, 2, 3, 1}}},
                  DType::bf16);
  add<Contiguous>("channels first", {}, {{.shape = {1, 1 << 20, 16}, .permuted = {0, 2, 1}}});
  add<Contiguous>("channels last", {}, {{.shape = {1, 16, 1 << 20}, .permuted = {0, 2, 1}}});
  add<Concat>("concat channels", {-1}, {{.shape = volume}, {.shape = volume}});
  add<Pad>("pad depth", {1, 8, 8, 0}, {{.shape = volume}});
  add<Resize>("resize x2", {{{64, 128, 128}}}, {{.shape = {1, 32, 64, 64, 16}}});
  add<ResizeGrad>("resize x2 grad", {{{32, 64, 64}}}, {{.shape = volume}});
}

void reductions() {
  const SampleInput x{.shape = volume};
  add<Reduce>("bias gradient", {ReduceKind::sum, {0, 1, 2, 3}}, {x});
  add<Reduce>("sum all", {ReduceKind::sum, {}}, {x});
  add<Reduce>("mean last", {ReduceKind::mean, {-1}}, {x});
  add<Argmax>("argmax", {}, {{.shape = logits}});
}

void norms() {
  const SampleInput x{.shape = volume}, c{.shape = {16}}, stat{.shape = {1, 16}, .low = 0.5};
  add<GroupNorm>("instance_norm", {{16}}, {x, c, c});
  add<GroupNormGrad>("instance_norm_grad", {{16}}, {x, x, c, stat, stat});
  add<GroupNorm>("group_norm 4", {{4}}, {x, c, c});
  add<BatchNorm>("batch_norm 14", {}, {{.shape = logits}, {.shape = {14}}, {.shape = {14}}});
  const SampleInput tokens{.shape = {8, 32768, 32}}, w{.shape = {32}},
      rows{.shape = {8, 32768}, .low = 0.5};
  add<LayerNorm>("layer_norm 32", {}, {tokens, w, w});
  add<LayerNormGrad>("layer_norm_grad 32", {}, {tokens, tokens, w, rows, rows});
}

void along_axes() {
  const SampleInput tokens{.shape = {8, 32768, 32}}, attention{.shape = {4, 4, 32768, 16}};
  add<Softmax>("softmax channels", {{-1}}, {{.shape = logits}});
  add<SoftmaxGrad>("softmax_grad channels", {{-1}}, {{.shape = logits}, {.shape = logits}});
  add<Softmax>("softmax attention", {{-1}}, {{.shape = {4, 4, 8192, 64}}});
  add<Softmax>("softmax tokens", {{1}}, {tokens});
  add<Softmax>("softmax tokens, one sample", {{1}}, {{.shape = {1, 32768, 32}}});
  add<SoftmaxGrad>("softmax_grad tokens", {{1}}, {tokens, tokens});
  add<L2Normalise>("l2 tokens last", {{-1}}, {{.shape = {8, 4, 8, 32768}}});
  add<L2Normalise>("l2 tokens", {{1}}, {tokens});
  add<L2Normalise>("l2 heads", {{-1}}, {attention});
}

void training() {
  const SampleInput y{.shape = labels, .low = 0, .high = 14, .integer = true}, x{.shape = logits};
  const SampleInput one{.shape = {}}, sums{.shape = {1, 14}}, p{.shape = {1 << 24}};
  const SampleInput positive{.shape = {1 << 24}, .low = 0.1};
  add<CrossEntropy>("cross_entropy", {}, {x, y});
  add<CrossEntropyGrad>("cross_entropy_grad", {}, {one, x, y});
  add<ClassSums>("class_sums", {}, {x, y});
  add<ClassSumsGrad>("class_sums_grad", {}, {sums, sums, x, y});
  add<SgdStep>("sgd", {.momentum = 0.99, .nesterov = true}, {p, p, p});
  add<AdamStep>("adam", {}, {p, p, p, positive});
  add<SquaredNorm>("squared_norm", {}, {p});
}

const bool registered =
    (elementwise(), copies(), reductions(), norms(), along_axes(), training(), true);

}  // namespace
}  // namespace voxlab
