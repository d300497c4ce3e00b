// The block of 3D UX-Net: layer norm, channel scaling, GELU, channel scaling, a factor a channel and the residual are one op each
// way; in inference the depthwise convolution before them is part of it.
#include <algorithm>

#include "runtime/ops/binary.h"
#include "runtime/ops/norm_scaling.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/view.h"
#include "runtime/plan/fuse.h"
#include "runtime/plan/rewriter.h"

namespace voxlab::plan {
namespace {

// Whether a convolution scales channels: a kernel of 1 whose groups have `in` channels each on the way in.
bool scales(const Rewriter& r, const ConvOptions& o, int weight, int64_t groups, int64_t in) {
  const Shape& shape = r.meta(weight).shape;
  return o.groups == groups && shape[-2] == in && shape.numel() == in * shape[-1] && all_are(o.stride, 1) && all_are(o.padding, 0);
}

bool is_product(const TraceStep& node) { return is<Binary>(node) && attrs<Binary>(node).kind == BinaryKind::mul; }

// Adds a tensor up to one value a channel.
bool sums_channels(const Rewriter& r, const TraceStep& node) {
  const Shape& sums = r.meta(node.outputs[0]).shape;
  return is<Reduce>(node) && attrs<Reduce>(node).kind == ReduceKind::sum && sums[-1] == r.meta(node.inputs[0]).shape[-1] && sums.numel() == sums[-1];
}

// The forward pass, by its nodes; what is left out is absent.
struct Forward {
  int norm, expand, gelu, reduce, gamma = absent, sum = absent;
  int factor = absent, residual = absent;  // values
};
struct Backward {
  int gamma = absent, reduce_dgrad, gelu, expand_dgrad, norm;        // of data, in order
  int dgamma = absent, dgamma_sum = absent, dgamma_view = absent, reduce_wgrad, reduce_bias = absent, expand_wgrad, expand_bias = absent;
  int dy;  // a value
};

class Block {
 public:
  explicit Block(Rewriter& r) : r_(r) {}

  void fuse(int norm) {
    Forward f{.norm = norm};
    if (!find(f)) return;
    const bool trained = r_.users(r_.node(f.expand).outputs[0]).size() > 1;
    Backward b;
    if (trained ? !find(f, b) : !alone(f)) return;
    TraceStep gradient;
    if (trained) gradient = gradient_of(f, b);
    const int last = forward(f);
    if (trained) {
      for (const int gone : {b.gamma, b.reduce_dgrad, b.gelu, b.expand_dgrad, b.norm, b.dgamma, b.dgamma_sum, b.dgamma_view, b.reduce_wgrad, b.reduce_bias,
                             b.expand_wgrad, b.expand_bias})
        if (gone != absent) r_.remove(gone);
      node(first_of(b)) = std::move(gradient);
    }
    r_.refresh();
    if (!trained) join_convolution(last);
  }

 private:
  TraceStep& node(int n) { return r_.node(n); }
  int made_by(int n) { return node(n).outputs[0]; }

  // The one reader of a value that is such a node, or absent.
  template <class Is>
  int reader(int value, const Is& is_it) {
    int found = absent;
    for (const int user : r_.users(value)) {
      if (user >= static_cast<int>(r_.graph.steps.size()) || !is_it(node(user))) continue;
      if (found != absent) return absent;
      found = user;
    }
    return found;
  }

  // A convolution that reads this value as its input and scales its channels.
  int scaling(int value, int64_t groups, int64_t in) {
    return reader(value, [&](const TraceStep& n) { return is<Conv>(n) && n.inputs[0] == value && scales(r_, attrs<Conv>(n), n.inputs[1], groups, in); });
  }

  bool find(Forward& f) {
    const int normal = made_by(f.norm);
    const Meta& meta = r_.meta(normal);
    if (meta.dtype != DType::f32 || meta.device != Device::cpu) return false;
    const int64_t channels = meta.shape[-1];
    f.expand = scaling(normal, channels, 1);
    if (f.expand == absent) return false;
    const int64_t wide = r_.meta(made_by(f.expand)).shape[-1];
    f.gelu = reader(made_by(f.expand), [](const TraceStep& n) { return is<Unary>(n) && is_gelu(n); });
    if (f.gelu == absent || wide % channels != 0) return false;
    f.reduce = scaling(made_by(f.gelu), channels, wide / channels);
    if (f.reduce == absent || r_.meta(made_by(f.reduce)).shape != meta.shape) return false;
    int value = made_by(f.reduce);
    const auto by_channel = [&](int v) { return r_.meta(v).shape == Shape{channels} && r_.meta(v).dtype == DType::f32; };
    f.gamma = reader(value, [&](const TraceStep& n) { return is_product(n) && (by_channel(n.inputs[0]) || by_channel(n.inputs[1])); });
    if (f.gamma != absent) {
      const TraceStep& product = node(f.gamma);
      f.factor = product.inputs[by_channel(product.inputs[0]) ? 0 : 1];
      value = made_by(f.gamma);
    }
    const int sum = r_.only_user(value);
    if (sum != absent) f.residual = other_operand(r_, node(sum), value);
    if (f.residual != absent) f.sum = sum;
    return true;
  }

  // Whether nobody else reads what lies within the forward pass.
  bool alone(const Forward& f) {
    const bool factor = f.gamma == absent || r_.only_user(made_by(f.reduce)) == f.gamma;
    return factor && r_.only_user(made_by(f.norm)) == f.expand && r_.only_user(made_by(f.expand)) == f.gelu &&
           r_.only_user(made_by(f.gelu)) == f.reduce;
  }

  // A weight gradient of these two, and the sum of the latter.
  int weight_gradient(int x, int dy) {
    return reader(dy, [&](const TraceStep& n) { return is<ConvWgrad>(n) && n.inputs[0] == x && n.inputs[1] == dy; });
  }
  int channel_sums(int value) {
    return reader(value, [&](const TraceStep& n) { return sums_channels(r_, n); });
  }
  int data_gradient(int value, int weight) {
    return reader(value, [&](const TraceStep& n) { return is<ConvDgrad>(n) && n.inputs[0] == value && n.inputs[1] == weight; });
  }
  bool read_by(int value, std::initializer_list<int> readers) {
    const std::vector<int>& users = r_.users(value);
    const auto expected = static_cast<size_t>(std::count_if(readers.begin(), readers.end(), [](int n) { return n != absent; }));
    return users.size() == expected && std::all_of(users.begin(), users.end(), [&](int user) { return std::find(readers.begin(), readers.end(), user) != readers.end(); });
  }

  bool find(const Forward& f, Backward& b) {
    const int normal = made_by(f.norm), z = made_by(f.expand), wide = made_by(f.gelu), reduced = made_by(f.reduce);
    b.gelu = reader(z, [&](const TraceStep& n) { return is<UnaryGrad>(n) && is_gelu(n) && n.inputs[0] == z; });
    if (b.gelu == absent) return false;
    const int dwide = node(b.gelu).inputs[1], dz = made_by(b.gelu);
    b.reduce_dgrad = r_.maker(dwide);
    if (b.reduce_dgrad == absent || !is<ConvDgrad>(node(b.reduce_dgrad)) || r_.only_user(dwide) != b.gelu) return false;
    const int dreduced = node(b.reduce_dgrad).inputs[0];
    if (node(b.reduce_dgrad).inputs[1] != node(f.reduce).inputs[1]) return false;
    b.dy = dreduced;
    if (f.gamma != absent) {
      b.gamma = r_.maker(dreduced);
      if (b.gamma == absent || !is_product(node(b.gamma))) return false;
      const std::vector<int>& in = node(b.gamma).inputs;
      if (in[0] != f.factor && in[1] != f.factor) return false;
      b.dy = in[in[0] == f.factor ? 1 : 0];
      b.dgamma = reader(reduced, [&](const TraceStep& n) { return is_product(n) && (n.inputs[0] == b.dy || n.inputs[1] == b.dy); });
      if (b.dgamma != absent) {
        b.dgamma_sum = r_.only_user(made_by(b.dgamma));
        if (b.dgamma_sum == absent || !sums_channels(r_, node(b.dgamma_sum))) return false;
        b.dgamma_view = r_.only_user(made_by(b.dgamma_sum));  // the sum keeps its axes
        if (b.dgamma_view == absent || !is<Reshape>(node(b.dgamma_view))) return false;
      }
    }
    b.reduce_wgrad = weight_gradient(wide, dreduced);
    b.reduce_bias = f.gamma == absent ? absent : channel_sums(dreduced);
    b.expand_wgrad = weight_gradient(normal, dz);
    b.expand_bias = channel_sums(dz);
    b.expand_dgrad = data_gradient(dz, node(f.expand).inputs[1]);
    if (b.reduce_wgrad == absent || b.expand_wgrad == absent || b.expand_dgrad == absent) return false;
    const int dnormal = made_by(b.expand_dgrad);
    b.norm = r_.only_user(dnormal);
    const TraceStep& norm = node(f.norm);
    if (b.norm == absent || !is<LayerNormGrad>(node(b.norm)) ||
        node(b.norm).inputs != std::vector<int>{dnormal, norm.inputs[0], input(norm, 1), norm.outputs[1], norm.outputs[2]})
      return false;
    const bool own = f.gamma == absent || read_by(dreduced, {b.reduce_dgrad, b.reduce_wgrad, b.reduce_bias});
    // Without gamma dy is somebody else's too, and its sum stays with them.
    return own && read_by(normal, {f.expand, b.expand_wgrad}) && read_by(z, {f.gelu, b.gelu}) && read_by(wide, {f.reduce, b.reduce_wgrad}) &&
           (f.gamma == absent || read_by(reduced, {f.gamma, b.dgamma})) && read_by(dz, {b.expand_dgrad, b.expand_wgrad, b.expand_bias});
  }

  std::vector<int> parameters(const Forward& f) {
    const TraceStep &norm = node(f.norm), &expand = node(f.expand), &reduce = node(f.reduce);
    return {input(norm, 1), input(norm, 2), expand.inputs[1], input(expand, 2), reduce.inputs[1], input(reduce, 2), f.factor};
  }

  // In the place of the last of them.
  int forward(const Forward& f) {
    const TraceStep norm = node(f.norm);
    const int last = f.sum != absent ? f.sum : f.gamma != absent ? f.gamma : f.reduce;
    std::vector<int> in{norm.inputs[0]};
    const std::vector<int> seven = parameters(f);
    in.insert(in.end(), seven.begin(), seven.end());
    in.push_back(f.residual);
    TraceStep fused = node(last);
    become<NormScaling>(fused, {attrs<LayerNorm>(norm)}, in, {made_by(last), norm.outputs[1], norm.outputs[2]});
    for (const int gone : {f.norm, f.expand, f.gelu, f.reduce, f.gamma, f.sum})
      if (gone != absent) r_.remove(gone);
    node(last) = std::move(fused);
    return last;
  }

  // The first that reads dy.
  static int first_of(const Backward& b) { return b.gamma != absent ? b.gamma : b.reduce_dgrad; }

  TraceStep gradient_of(const Forward& f, const Backward& b) {
    const TraceStep& norm = node(f.norm);
    TraceStep gradient = node(first_of(b));
    std::vector<int> in{b.dy, norm.inputs[0]}, out = node(b.norm).outputs;
    const std::vector<int> seven = parameters(f);
    in.insert(in.end(), seven.begin(), seven.end());
    in.insert(in.end(), {norm.outputs[1], norm.outputs[2]});
    for (const int maker : {b.expand_wgrad, b.expand_bias, b.reduce_wgrad, b.reduce_bias, b.dgamma_view}) out.push_back(maker == absent ? absent : made_by(maker));
    const EpsAttrs eps = attrs<LayerNorm>(norm);
    Metas metas;
    for (const int value : in) metas.push_back(value == absent ? Meta{.shape = Shape{0}} : r_.meta(value));
    const Metas results = NormScalingGrad::infer({eps}, metas);
    for (size_t i = 0; i < out.size(); ++i)
      if (out[i] == absent) out[i] = r_.add_value(results[i]);
    become<NormScalingGrad>(gradient, {eps}, in, out);
    return gradient;
  }

  // The convolution whose output the norm alone reads and whose input is the residual.
  void join_convolution(int at) {
    const TraceStep& block = node(at);
    const int x = block.inputs[0], maker = r_.maker(x);
    if (maker == absent || !is<Conv>(node(maker)) || r_.only_user(x) != at || r_.read(block.outputs[1]) || r_.read(block.outputs[2])) return;
    const TraceStep& conv = node(maker);
    if (block.inputs.back() != conv.inputs[0] || r_.meta(conv.inputs[0]).shape != r_.meta(x).shape) return;
    TraceStep joined = block;
    std::vector<int> in{conv.inputs[0], conv.inputs[1], input(conv, 2)};
    in.insert(in.end(), block.inputs.begin() + 1, block.inputs.end() - 1);
    become<ConvNormScaling>(joined, {attrs<Conv>(conv), attrs<NormScaling>(block)}, in, {block.outputs[0]});
    if (!fuses(r_, joined)) return;
    r_.remove(maker);
    node(at) = std::move(joined);
    r_.refresh();
  }

  Rewriter& r_;
};

}  // namespace

void fuse_scalings(Trace& graph) {
  Rewriter r(graph);
  Block block(r);
  for (int n = 0; n < static_cast<int>(graph.steps.size()); ++n)
    if (r.node(n).op != nullptr && is<LayerNorm>(r.node(n))) block.fuse(n);
}

}  // namespace voxlab::plan
