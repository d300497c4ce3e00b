// Binds forward convolutions, plain and fused, to the dense core.
#include <cstring>

#include "runtime/backend/cpu/column_norm.h"
#include "runtime/backend/cpu/conv_binding.h"

namespace voxlab::cpu {
namespace {

enum Input : size_t { x_input, weight_input, bias_input, residual_input, second_input, moments_input, norm_weight_input, norm_bias_input };

class Forward {
 public:
  Forward(const FusedConv::Attrs& attrs, Descs in, Descs out)
      : a_(attrs), in_(in.begin(), in.end()), to_(out[0].dtype()), precision_(f32_precision()) {
    in_.resize(norm_bias_input + 1, {.present = false});
    Shape whole = in_[x_input].shape();
    if (has(second_input)) whole.set(-1, whole[-1] + in_[second_input].size(-1));
    g_ = dense_geometry(Conv::geometry({a_}, whole, in_[weight_input].shape(), out[0].shape()));
    const InputNorm norm{.activation = epilogue_of(a_.input.finish).activation};
    ConvExtras extras;
    if (has(second_input)) extras.second = {{nullptr, type(second_input)}, in_[second_input].size(-1)};
    if (a_.norm_input) extras.norm = &norm;
    with_extras_ = takes_extras(g_, type(x_input), extras, to_, precision_);
    kept_ = kept_weights(g_, in_[weight_input], false, precision_);
  }

  bool supported() const {
    for (const Input i : {x_input, weight_input, bias_input, second_input})
      if (has(i) && !cpu::supported(type(i))) return false;
    const bool f32_alone = has(second_input) || a_.norm_input;
    if (f32_alone && !on_the_way() && (type(x_input) != DType::f32 || type(second_input) != DType::f32)) return false;
    if (has(residual_input) && !cpu::supported(type(residual_input))) return false;
    for (const Input i : {moments_input, norm_weight_input, norm_bias_input})
      if (has(i) && type(i) != DType::f32) return false;
    return cpu::supported(to_);
  }

  Kernel kernel() const {
    const ConstBuffer x{nullptr, type(x_input)}, w{nullptr, type(weight_input)};
    const bool fused = fuses() && on_the_way();
    return {.name = std::string(fused ? with_extras_ : conv_forward(g_, x, w, {nullptr, to_}, {}, precision_)),
            .workspace = on_the_way() ? 0 : gathered_bytes(),
            .run = [call = *this](Pointers in, Pointers out, std::byte* workspace) { call.run(in, out, workspace); },
            .narrows = takes_bf16(g_, false, precision_),
            .extra_passes = fuses() && !on_the_way(),
            .kept = kept_inputs(kept_, weight_input)};
  }

 private:
  bool has(Input i) const { return in_[i].present; }
  DType type(Input i) const { return has(i) ? in_[i].dtype() : DType::f32; }
  bool on_the_way() const { return !with_extras_.empty(); }
  bool fuses() const { return has(second_input) || a_.norm_input || a_.moments; }
  int64_t positions() const { return g_.in[0] * g_.in[1] * g_.in[2]; }
  int64_t gathered_bytes() const {
    return has(second_input) || a_.norm_input ? g_.batch * positions() * g_.in_channels * int64_t{sizeof(float)} : 0;
  }
  static const float* floats(const std::byte* p) { return reinterpret_cast<const float*>(p); }

  void run(Pointers in, Pointers out, std::byte* workspace) const {
    std::vector<float> wide;
    Epilogue epilogue = epilogue_of(a_);
    if (has(residual_input)) set_residual(epilogue, in[residual_input], type(residual_input));
    if (has(bias_input)) epilogue.bias = f32_bias(in[bias_input], type(bias_input), g_.out_channels, wide);
    ConstBuffer x{in[x_input], type(x_input)};
    const ConstBuffer w{in[weight_input], type(weight_input), kept_.get()};
    const Buffer y{out[0], to_};
    if (on_the_way() && fuses() && run_with_extras(in, out, x, w, y, epilogue)) return;
    // Step by step: where the kernel has no such form, or a value is not finite.
    std::unique_ptr<Storage> memory;
    if (gathered_bytes() > 0) {
      if (on_the_way()) {
        memory = std::make_unique<Storage>(gathered_bytes(), Device::cpu);
        workspace = memory->data();
      }
      a_.norm_input ? normalise(in, workspace) : join(in, workspace);
      x = {workspace, DType::f32};
    }
    conv_forward(g_, x, w, y, epilogue, precision_);
    if (a_.moments) measure({out[0], to_}, reinterpret_cast<float*>(out[1]));
  }

  bool run_with_extras(Pointers in, Pointers out, ConstBuffer x, ConstBuffer w, Buffer y, const Epilogue& epilogue) const {
    ConvExtras extras;
    if (has(second_input)) extras.second = {{in[second_input], type(second_input)}, in_[second_input].size(-1)};
    std::vector<float> mean, scale, shift;
    InputNorm norm{};
    if (a_.norm_input) {
      for (int64_t sample = 0; sample < g_.batch; ++sample) {
        const Normaliser n = normaliser(in, sample);
        // A wide row holds the columns more than once.
        const auto append = [&](std::vector<float>& to, const ColumnValues& from) {
          to.insert(to.end(), from.v.begin(), from.v.begin() + g_.in_channels);
        };
        append(mean, n.centre);
        append(scale, n.scale);
        append(shift, n.shift);
      }
      const Epilogue finish = epilogue_of(a_.input.finish);
      norm = {mean.data(), scale.data(), shift.data(), finish.activation, finish.slope};
      extras.norm = &norm;
    }
    if (a_.moments) extras.moments = reinterpret_cast<float*>(out[1]);
    return conv_forward_with(extras, g_, x, w, y, epilogue, precision_);
  }

  Normaliser normaliser(Pointers in, int64_t sample) const {
    const NormGeometry g = GroupNorm::geometry(a_.input.norm, in_[x_input].shape());
    const Affine affine{has(norm_weight_input) ? floats(in[norm_weight_input]) : nullptr,
                        has(norm_bias_input) ? floats(in[norm_bias_input]) : nullptr};
    const float* moments = floats(in[moments_input]) + 2 * sample * g.width();
    return normaliser_of(g, a_.input.norm.eps, known_moments(moments, g.positions, g.width()), affine);
  }

  void normalise(Pointers in, std::byte* to) const {
    const int64_t elements = positions() * g_.in_channels;
    for (int64_t sample = 0; sample < g_.batch; ++sample) {
      const Normaliser n = normaliser(in, sample);
      finish_wide_rows(WideRows(positions(), g_.in_channels),
                       {.x = in[x_input] + sample * elements * size_of(type(x_input)),
                        .y = to + sample * elements * int64_t{sizeof(float)},
                        .x_storage = storage_of(type(x_input)),
                        .value = n.columns(),
                        .activation = static_cast<int>(a_.input.finish.activation),
                        .slope = static_cast<float>(a_.input.finish.slope)});
    }
  }

  void join(Pointers in, std::byte* to) const {
    const int64_t rest = in_[second_input].size(-1), first = g_.in_channels - rest;
    const Values a{in[x_input], type(x_input)}, b{in[second_input], type(second_input)};
    auto* rows = reinterpret_cast<float*>(to);
    parallel_for(g_.batch * positions(), grain_rows(g_.in_channels), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        copy_row(a.from(i * first), first, rows + i * g_.in_channels);
        copy_row(b.from(i * rest), rest, rows + i * g_.in_channels + first);
      }
    });
  }

  static void copy_row(const Values& from, int64_t n, float* to) {
    if (from.dtype == DType::bf16) return active_loops().widen(from.data, to, n);
    std::memcpy(to, from.data, static_cast<size_t>(n) * sizeof(float));
  }

  void measure(const Values& y, float* moments) const {
    const auto out = g_.out();
    const int64_t rows = out[0] * out[1] * out[2];
    for (int64_t sample = 0; sample < g_.batch; ++sample)
      for (const Moments& m : column_moments(y.from(sample * rows * g_.out_channels), rows, g_.out_channels)) {
        *moments++ = static_cast<float>(m.mean);
        *moments++ = static_cast<float>(m.m2 / m.count);
      }
  }

  FusedConv::Attrs a_;
  std::vector<TensorDesc> in_;
  DType to_;
  Precision precision_;
  ConvGeometry g_;
  std::string_view with_extras_;  // the kernel's name where it takes them on its way
  std::shared_ptr<const KeptWeights> kept_;
};

}  // namespace

Kernel prepare(const FusedConv::Attrs& a, Descs in, Descs out) {
  const Forward call(a, in, out);
  return call.supported() ? call.kernel() : Kernel{};
}
Kernel prepare(const Conv::Attrs& a, Descs in, Descs out) { return prepare(FusedConv::Attrs{a, {}}, in, out); }

}  // namespace voxlab::cpu
