#include "runtime/backend/ref/ref.h"
#include "runtime/core/parallel.h"

namespace voxlab::ref {
namespace {

// Calls f(output row, input row, weight row) for every output position and every tap inside the input.
// Rows are element offsets of: y at (n, position, 0), x at (n, position, 0), w at (tap, 0, 0).
template <class F>
void for_each_tap(const ConvGeometry& g, int64_t first_row, int64_t last_row, F f) {
  const int64_t per_group = g.in_channels / g.groups;
  for (int64_t row = first_row; row < last_row; ++row) {  // row = (n, od, oh)
    const int64_t oh = row % g.out[1], od = row / g.out[1] % g.out[0], n = row / g.out[1] / g.out[0];
    for (int64_t ow = 0; ow < g.out[2]; ++ow) {
      const int64_t y = ((row * g.out[2]) + ow) * g.out_channels;
      for (int64_t kd = 0; kd < g.kernel[0]; ++kd) {
        const int64_t d = od * g.stride[0] - g.padding[0] + kd * g.dilation[0];
        if (d < 0 || d >= g.in[0]) continue;
        for (int64_t kh = 0; kh < g.kernel[1]; ++kh) {
          const int64_t h = oh * g.stride[1] - g.padding[1] + kh * g.dilation[1];
          if (h < 0 || h >= g.in[1]) continue;
          for (int64_t kw = 0; kw < g.kernel[2]; ++kw) {
            const int64_t w = ow * g.stride[2] - g.padding[2] + kw * g.dilation[2];
            if (w < 0 || w >= g.in[2]) continue;
            const int64_t x = (((n * g.in[0] + d) * g.in[1] + h) * g.in[2] + w) * g.in_channels;
            const int64_t tap = ((kd * g.kernel[1] + kh) * g.kernel[2] + kw) * per_group * g.out_channels;
            f(y, x, tap);
          }
        }
      }
    }
  }
}

// Calls f(group, input channel, first and last output channel) within one tap.
template <class F>
void for_each_channel(const ConvGeometry& g, F f) {
  const int64_t per_group = g.in_channels / g.groups, out_per_group = g.out_channels / g.groups;
  for (int64_t group = 0; group < g.groups; ++group)
    for (int64_t i = 0; i < per_group; ++i)
      f(group * per_group + i, i, group * out_per_group, (group + 1) * out_per_group);
}

void forward(const ConvGeometry& g, const Array& x, const Array& w, Array& y) {
  parallel_for(g.batch * g.out[0] * g.out[1], 1, [&](int64_t begin, int64_t end) {
    for_each_tap(g, begin, end, [&](int64_t yo, int64_t xo, int64_t wo) {
      for_each_channel(g, [&](int64_t c, int64_t i, int64_t o0, int64_t o1) {
        const double value = x[xo + c];
        for (int64_t o = o0; o < o1; ++o) y[yo + o] += value * w[wo + i * g.out_channels + o];
      });
    });
  });
}

void data_gradient(const ConvGeometry& g, const Array& dy, const Array& w, Array& dx) {
  const int64_t rows = g.out[0] * g.out[1];
  parallel_for(g.batch, 1, [&](int64_t begin, int64_t end) {  // samples do not overlap in dx
    for_each_tap(g, begin * rows, end * rows, [&](int64_t yo, int64_t xo, int64_t wo) {
      for_each_channel(g, [&](int64_t c, int64_t i, int64_t o0, int64_t o1) {
        double sum = 0;
        for (int64_t o = o0; o < o1; ++o) sum += dy[yo + o] * w[wo + i * g.out_channels + o];
        dx[xo + c] += sum;
      });
    });
  });
}

void weight_gradient(const ConvGeometry& g, const Array& x, const Array& dy, Array& dw) {
  for_each_tap(g, 0, g.batch * g.out[0] * g.out[1], [&](int64_t yo, int64_t xo, int64_t wo) {
    for_each_channel(g, [&](int64_t c, int64_t i, int64_t o0, int64_t o1) {
      const double value = x[xo + c];
      for (int64_t o = o0; o < o1; ++o) dw[wo + i * g.out_channels + o] += value * dy[yo + o];
    });
  });
}

}  // namespace

void reference(const Conv::Attrs& a, RefInputs in, RefOutputs out) {
  const ConvGeometry g = Conv::geometry(a, in[0].shape, in[1].shape, out[0].shape);
  if (in.size() > 2 && in[2].present)
    for (int64_t i = 0; i < out[0].numel(); ++i) out[0][i] = in[2][i % g.out_channels];
  forward(g, in[0], in[1], out[0]);
}

void reference(const ConvDgrad::Attrs& a, RefInputs in, RefOutputs out) {
  data_gradient(Conv::geometry({a}, out[0].shape, in[1].shape, in[0].shape), in[0], in[1], out[0]);
}

void reference(const ConvWgrad::Attrs& a, RefInputs in, RefOutputs out) {
  weight_gradient(Conv::geometry({a}, in[0].shape, out[0].shape, in[1].shape), in[0], in[1], out[0]);
}

void reference(const ConvTranspose::Attrs& a, RefInputs in, RefOutputs out) {
  data_gradient(Conv::geometry({a}, out[0].shape, in[1].shape, in[0].shape), in[0], in[1], out[0]);
}

void reference(const Matmul::Attrs&, RefInputs in, RefOutputs out) {
  const Shape& shape = out[0].shape;
  const int64_t m = shape[-2], n = shape[-1], k = in[0].shape[-1];
  // Element offset of the matrix that batch entry `b` of the output reads, with broadcasting.
  const auto matrix = [&](const Shape& operand, int64_t b) {
    int64_t offset = 0, step = operand[-1] * operand[-2];
    for (int axis = shape.rank() - 3; axis >= 0; --axis) {
      const int at = axis - (shape.rank() - operand.rank());
      if (at >= 0) {
        if (operand[at] != 1) offset += b % shape[axis] * step;
        step *= operand[at];
      }
      b /= shape[axis];
    }
    return offset;
  };
  const int64_t batch = m * n == 0 ? 0 : out[0].numel() / (m * n);
  parallel_for(batch * m, 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / m, a0 = matrix(in[0].shape, b) + row % m * k, b0 = matrix(in[1].shape, b);
      for (int64_t i = 0; i < k; ++i)
        for (int64_t j = 0; j < n; ++j) out[0][row * n + j] += in[0][a0 + i] * in[1][b0 + i * n + j];
    }
  });
}

void reference(const Linear::Attrs&, RefInputs in, RefOutputs out) {
  const int64_t k = in[1].shape[0], n = in[1].shape[1];
  parallel_for(in[0].numel() / std::max<int64_t>(1, k), 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t j = 0; j < n; ++j) out[0][row * n + j] = in.size() > 2 && in[2].present ? in[2][j] : 0;
      for (int64_t i = 0; i < k; ++i)
        for (int64_t j = 0; j < n; ++j) out[0][row * n + j] += in[0][row * k + i] * in[1][i * n + j];
    }
  });
}

}  // namespace voxlab::ref
