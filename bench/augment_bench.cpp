// Making one training batch with every augmentation on: what the loader's threads do behind a step.
#include <benchmark/benchmark.h>

#include "experiments/data/sampler.h"

namespace voxlab {
namespace {

void batch(benchmark::State& state) {
  Case volume;
  volume.id = "volume";
  volume.image = Tensor::full({80, 96, 64, 1}, 0.5, DType::f32);
  volume.label = Tensor::zeros({80, 96, 64}, DType::u8);
  volume.label.data<uint8_t>()[(40 * 96 + 40) * 64 + 40] = 1;
  AugmentConfig all;
  all.rotate_probability = all.scale_probability = all.noise_probability = 1;
  all.brightness_probability = all.contrast_probability = all.gamma_probability = 1;
  const PatchSampler sampler({volume}, {.patch = {32, 64, 64}, .batch = 2, .augment = all});
  int64_t step = 0;
  for (auto _ : state) benchmark::DoNotOptimize(sampler.batch(step++));
}
BENCHMARK(batch)->Name("augment/batch_2x32x64x64")->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace voxlab
