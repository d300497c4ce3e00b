// Windows are cut, mirrored, run, mirrored back and summed with weights.
#include "experiments/inference/sliding_window.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <string>

#include "runtime/core/error.h"
#include "runtime/core/parallel.h"

namespace voxlab {
namespace {

using Size3 = std::array<int64_t, 3>;

// The volume's and the patch's sizes on three spatial axes; a 2-d grid has D = 1.
struct Grid {
  int rank = 3;
  int64_t batch = 1, channels = 1;
  Size3 image{}, patch{}, pad{};  // pad: zeros before the image
  std::vector<Size3> windows;     // first voxels, in the padded volume
};

Grid make_grid(const Tensor& volume, const SlidingWindowOptions& o) {
  Grid grid;
  grid.rank = static_cast<int>(o.patch.size());
  if (grid.rank != 2 && grid.rank != 3)
    fail("sliding window", "expected a patch of 2 or 3 axes, got " + std::to_string(grid.rank));
  if (!volume || volume.rank() != grid.rank + 2)
    fail("sliding window", "expected a volume (N, " +
                               std::string(grid.rank == 3 ? "D, H, W" : "H, W") + ", C), got " +
                               (volume ? volume.meta().to_string() : std::string("nothing")));
  if (volume.dtype() != DType::f32 && volume.dtype() != DType::f64)
    fail("sliding window", "expected a volume of f32 or f64, got " + volume.meta().to_string());
  grid.batch = volume.size(0);
  grid.channels = volume.size(-1);
  std::array<std::vector<int64_t>, 3> starts;
  for (int a = 0; a < 3; ++a) {
    const int from = a - (3 - grid.rank);
    grid.image[a] = from < 0 ? 1 : volume.size(1 + from);
    grid.patch[a] = from < 0 ? 1 : o.patch[from];
    if (grid.image[a] < 1) fail("sliding window", "empty volume " + volume.meta().to_string());
    const int64_t missing = std::max<int64_t>(0, grid.patch[a] - grid.image[a]);
    grid.pad[a] = missing / 2;
    const int64_t padded = grid.image[a] + missing;
    starts[a] = o.style == TileStyle::nnunet ? nnunet_tile_starts(padded, grid.patch[a], o.step)
                                             : monai_tile_starts(padded, grid.patch[a], o.overlap);
  }
  for (int64_t d : starts[0])
    for (int64_t h : starts[1])
      for (int64_t w : starts[2]) grid.windows.push_back({d, h, w});
  return grid;
}

using Flip = std::array<bool, 3>;

std::vector<Flip> mirror_subsets(const SlidingWindowOptions& o, int rank) {
  std::vector<Flip> flips{{false, false, false}};
  for (int axis = rank - 1; axis >= 0; --axis) {
    if (std::find(o.mirror_axes.begin(), o.mirror_axes.end(), axis) == o.mirror_axes.end())
      continue;
    const size_t known = flips.size();
    for (size_t i = 0; i < known; ++i) {
      flips.push_back(flips[i]);
      flips.back()[axis + 3 - rank] = true;
    }
  }
  for (int64_t axis : o.mirror_axes)
    if (axis < 0 || axis >= rank)
      fail("sliding window", "no spatial axis " + std::to_string(axis) + " to mirror");
  return flips;
}

// One window of one volume of the batch.
struct Window {
  int64_t volume = 0;
  Size3 start{};
};

// Rows of a patch that one thread should take at least.
int64_t row_piece(int64_t row_values) { return 1 + (1 << 15) / (1 + row_values); }

// Cuts a window into `out`, zeros outside of the image.
template <class T>
void cut(const Grid& grid, const T* volume, const Window& window, const Flip& flip, T* out) {
  const auto [pd, ph, pw] = grid.patch;
  const int64_t channels = grid.channels;
  parallel_for(pd * ph, row_piece(pw * channels),
               [&, ph = ph, pw = pw, pd = pd](int64_t begin, int64_t end) {
                 for (int64_t row = begin; row < end; ++row) {
                   const int64_t z = row / ph, y = row % ph;
                   const int64_t d = window.start[0] - grid.pad[0] + (flip[0] ? pd - 1 - z : z);
                   const int64_t h = window.start[1] - grid.pad[1] + (flip[1] ? ph - 1 - y : y);
                   T* to = out + row * pw * channels;
                   const bool outside = d < 0 || d >= grid.image[0] || h < 0 || h >= grid.image[1];
                   const int64_t line =
                       ((window.volume * grid.image[0] + d) * grid.image[1] + h) * grid.image[2];
                   for (int64_t x = 0; x < pw; ++x, to += channels) {
                     const int64_t w = window.start[2] - grid.pad[2] + (flip[2] ? pw - 1 - x : x);
                     if (outside || w < 0 || w >= grid.image[2])
                       std::fill_n(to, channels, T{0});
                     else
                       std::copy_n(volume + (line + w) * channels, channels, to);
                   }
                 }
               });
}

template <class T>
void activate(OutputActivation activation, T* values, int64_t n) {
  if (activation == OutputActivation::sigmoid) {
    for (int64_t i = 0; i < n; ++i) values[i] = T{1} / (T{1} + std::exp(-values[i]));
  } else if (activation == OutputActivation::softmax) {
    const T top = *std::max_element(values, values + n);
    T sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += values[i] = std::exp(values[i] - top);
    for (int64_t i = 0; i < n; ++i) values[i] /= sum;
  }
}

// Adds the activated scores of `count` mirrored windows, turned back, to `sum`.
template <class T>
void add_mirrored(const Grid& grid, const Flip& flip, OutputActivation activation, const T* logits,
                  int64_t count, int64_t classes, T* sum) {
  const auto [pd, ph, pw] = grid.patch;
  parallel_for(count * pd * ph, row_piece(4 * pw * classes),
               [&, pd = pd, ph = ph, pw = pw](int64_t begin, int64_t end) {
                 std::vector<T> scores(static_cast<size_t>(classes));
                 for (int64_t row = begin; row < end; ++row) {
                   const int64_t z = row / ph % pd, y = row % ph;
                   const int64_t from = (row / ph - z + (flip[0] ? pd - 1 - z : z)) * ph +
                                        (flip[1] ? ph - 1 - y : y);
                   for (int64_t x = 0; x < pw; ++x) {
                     std::copy_n(logits + (from * pw + (flip[2] ? pw - 1 - x : x)) * classes,
                                 classes, scores.data());
                     activate(activation, scores.data(), classes);
                     T* out = sum + (row * pw + x) * classes;
                     for (int64_t k = 0; k < classes; ++k) out[k] += scores[k];
                   }
                 }
               });
}

// Sums of weighted windows, T being their type, for the planes that windows still reach. A plane
// leaves as soon as a window starts behind it.
template <class T>
class Blend {
 public:
  Blend(const Grid& grid, const SlidingWindowOptions& options, Device device, const PlaneUse& use)
      : grid_(grid), device_(device), use_(use) {
    // nnU-Net gives up the map for a single window, where it could only add rounding.
    const bool single = options.style == TileStyle::nnunet && grid.windows.size() == 1;
    if (options.gaussian && !single)
      map_ = gaussian_importance(options.style, options.patch);
    else
      map_.assign(static_cast<size_t>(grid.patch[0] * grid.patch[1] * grid.patch[2]), 1.0f);
  }

  // Adds `scores` (logits, if there is an activation left to apply) times `share`, weighted by the
  // map. Windows come in order of their first plane.
  void add(const Window& window, const T* scores, OutputActivation activation, T share,
           int64_t classes) {
    const auto [pd, ph, pw] = grid_.patch;
    const int64_t depth = grid_.image[0], start = window.start[0] - grid_.pad[0];
    const int64_t volume = window.volume * depth;
    finish_before(volume + std::max<int64_t>(0, start));
    while (first_ + static_cast<int64_t>(planes_.size()) < volume + std::min(depth, start + pd))
      planes_.push_back(new_plane(classes));
    parallel_for(pd * ph, row_piece(4 * pw * classes),
                 [&, ph = ph, pw = pw](int64_t begin, int64_t end) {
                   std::vector<T> voxel(static_cast<size_t>(classes));
                   for (int64_t row = begin; row < end; ++row) {
                     const int64_t d = start + row / ph;
                     const int64_t h = window.start[1] + row % ph - grid_.pad[1];
                     if (d < 0 || d >= depth || h < 0 || h >= grid_.image[1]) continue;
                     const Plane& plane = planes_[static_cast<size_t>(volume + d - first_)];
                     for (int64_t x = 0; x < pw; ++x) {
                       const int64_t w = window.start[2] + x - grid_.pad[2];
                       if (w < 0 || w >= grid_.image[2]) continue;
                       std::copy_n(scores + (row * pw + x) * classes, classes, voxel.data());
                       activate(activation, voxel.data(), classes);
                       const auto weight = static_cast<T>(map_[row * pw + x]);
                       const int64_t to = h * grid_.image[2] + w;
                       T* sum = plane.sum.template data<T>() + to * classes;
                       for (int64_t k = 0; k < classes; ++k) sum[k] += weight * (share * voxel[k]);
                       plane.weight.template data<T>()[to] += weight;
                     }
                   }
                 });
  }

  // Divides the planes before `end` by their weight and hands them on.
  void finish_before(int64_t end) {
    for (; first_ < end; ++first_) {
      const Plane plane = planes_.front();
      planes_.pop_front();
      const int64_t classes = plane.sum.size(-1);
      T* sum = plane.sum.template data<T>();
      const T* weight = plane.weight.template data<T>();
      parallel_for(plane.weight.numel(), 1 << 12, [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; ++i)
          for (int64_t k = 0; k < classes; ++k) sum[i * classes + k] /= weight[i];
      });
      use_(first_, plane.sum);
    }
  }

 private:
  struct Plane {
    Tensor sum, weight;  // (H, W, K) and (H, W)
  };

  // A plane that has left gives its memory back to the allocator, which hands it out again here.
  Plane new_plane(int64_t classes) const {
    return {.sum = Tensor::zeros({grid_.image[1], grid_.image[2], classes}, dtype_of<T>, device_),
            .weight = Tensor::zeros({grid_.image[1], grid_.image[2]}, dtype_of<T>, device_)};
  }

  const Grid& grid_;
  Device device_;
  const PlaneUse& use_;
  std::vector<float> map_;
  std::deque<Plane> planes_;
  int64_t first_ = 0;  // number of the first plane in planes_
};

// Runs the network on patches and returns its dense output in the accumulation type.
Tensor run_network(const PatchNetwork& network, const Tensor& patches, int64_t& classes,
                   DType dtype) {
  const Tensor out = network(patches);
  Shape expected = patches.shape();
  if (out && out.rank() == patches.rank() && out.size(-1) > 0)
    expected.set(-1, classes > 0 ? classes : out.size(-1));
  if (!out || out.shape() != expected || !is_floating(out.dtype()))
    fail("sliding window", "expected floating logits on the patches' grid " + expected.to_string() +
                               " (last axis: classes), got " +
                               (out ? out.meta().to_string() : std::string("nothing")));
  classes = out.size(-1);
  const Tensor converted = out.dtype() == dtype ? out : out.to(dtype);
  return converted.contiguous() ? converted : converted.clone();
}

template <class V, class T>
void predict(const Tensor& volume, const PatchNetwork& network, const SlidingWindowOptions& o,
             const PlaneUse& use) {
  const Grid grid = make_grid(volume, o);
  const std::vector<Flip> flips = mirror_subsets(o, grid.rank);
  const bool alone = flips.size() == 1;  // no mirrored copies to wait for
  Blend<T> blend(grid, o, volume.device(), use);
  std::vector<Window> windows;
  for (int64_t n = 0; n < grid.batch; ++n)
    for (const Size3& start : grid.windows) windows.push_back({n, start});

  const Tensor dense = volume.contiguous() ? volume : volume.clone();
  const int64_t voxels = grid.patch[0] * grid.patch[1] * grid.patch[2];
  const auto total = static_cast<int64_t>(windows.size());
  int64_t classes = 0;
  std::vector<T> scores;  // means over mirrored copies
  for (int64_t done = 0; done < total;) {
    // All calls are full: the last one begins earlier, and where there are too few windows one comes again.
    const int64_t first = std::max<int64_t>(0, std::min(done, total - o.batch));
    const auto window = [&](int64_t i) { return windows[static_cast<size_t>(std::min(first + i, total - 1))]; };
    Shape shape{o.batch};
    for (int64_t size : o.patch) shape.push_back(size);
    shape.push_back(grid.channels);
    std::fill(scores.begin(), scores.end(), T{0});
    Tensor logits;
    for (const Flip& flip : flips) {
      const Tensor patches = Tensor::empty(shape, volume.dtype(), volume.device());
      for (int64_t i = 0; i < o.batch; ++i)
        cut(grid, dense.data<V>(), window(i), flip, patches.data<V>() + i * voxels * grid.channels);
      logits = run_network(network, patches, classes, dtype_of<T>);
      if (alone) break;
      scores.resize(static_cast<size_t>(o.batch * voxels * classes));
      add_mirrored(grid, flip, o.activation, logits.data<T>(), o.batch, classes, scores.data());
    }
    const T* from = alone ? logits.data<T>() : scores.data();
    for (int64_t i = done - first; i < o.batch && first + i < total; ++i, ++done)
      blend.add(window(i), from + i * voxels * classes, alone ? o.activation : OutputActivation::none,
                T{1} / static_cast<T>(flips.size()), classes);
    if (o.progress) o.progress(done, total);
  }
  blend.finish_before(grid.batch * grid.image[0]);
}

}  // namespace

void sliding_planes(const Tensor& volume, const PatchNetwork& network,
                    const SlidingWindowOptions& options, const PlaneUse& use) {
  if (options.batch < 1) fail("sliding window", "expected a batch of at least one window");
  if (volume && volume.size(0) < 1)
    fail("sliding window", "empty batch " + volume.meta().to_string());
  const bool f64_volume = volume && volume.dtype() == DType::f64;
  switch (options.accumulate) {
    case DType::f32:
      return f64_volume ? predict<double, float>(volume, network, options, use)
                        : predict<float, float>(volume, network, options, use);
    case DType::f64:
      return f64_volume ? predict<double, double>(volume, network, options, use)
                        : predict<float, double>(volume, network, options, use);
    default:
      fail("sliding window", "expected accumulate f32 or f64");
  }
}

Tensor sliding_window(const Tensor& volume, const PatchNetwork& network,
                      const SlidingWindowOptions& options) {
  Tensor whole;
  sliding_planes(volume, network, options, [&](int64_t plane, const Tensor& scores) {
    if (!whole) {
      Shape shape = volume.shape();
      shape.set(-1, scores.size(-1));
      whole = Tensor::empty(shape, scores.dtype(), scores.device());
    }
    std::memcpy(whole.raw() + plane * scores.bytes(), scores.raw(),
                static_cast<size_t>(scores.bytes()));
  });
  return whole;
}

}  // namespace voxlab
