// 3D UX-Net's options beyond the released network, against hand calculation.
#include <gtest/gtest.h>

#include "nets/ux_net/net.h"
#include "nets/zoo.h"
#include "runtime/core/error.h"
#include "tests/support/draw.h"

namespace voxlab {
namespace {

int64_t parameters(void (*change)(ux_net::Config&)) {
  NetConfig config = net_preset("ux_net", "flare");
  change(config.ux_net);
  return make_network(config, {.device = Device::meta}).parameters.count();
}

TEST(UxNet, OptionsChangeTheParametersTheyShould) {
  const int64_t released = parameters([](ux_net::Config&) {});
  // Nine blocks with three norms, decoder1 with two: weight and bias a channel.
  EXPECT_EQ(parameters([](ux_net::Config& c) { c.decoder_norm = nn::NormKind::group; }) - released,
            2 * (3 * (48 + 96 + 192 + 384 + 768 + 384 + 192 + 96 + 48) + 2 * 48));
  // Two blocks a stage, 7^3 taps from each channel to every other.
  EXPECT_EQ(parameters([](ux_net::Config& c) { c.conv = ux_net::BlockConv::standard; }) - released,
            2 * 343 * (48 * 47 + 96 * 95 + 192 * 191 + 384 * 383));
  EXPECT_EQ(released - parameters([](ux_net::Config& c) { c.stem = ux_net::Stem::patches; }), (343 - 8) * 48);
  EXPECT_EQ(released - parameters([](ux_net::Config& c) { c.layer_scale = 0; }), 2 * (48 + 96 + 192 + 384));
  EXPECT_EQ(parameters([](ux_net::Config& c) { c.drop_path = 0.1; }), released);
}

TEST(UxNet, RefusesWhatDoesNotFit) {
  const auto refusal = [](void (*change)(ux_net::Config&)) -> std::string {
    ux_net::Config config;
    change(config);
    try {
      ux_net::validate(config);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const auto says = [&](void (*change)(ux_net::Config&), const char* text) {
    const std::string message = refusal(change);
    EXPECT_NE(message.find(text), std::string::npos) << message;
  };
  EXPECT_EQ(refusal([](ux_net::Config&) {}), "");
  says([](ux_net::Config& c) { c.image = {96, 96, 90}; }, "not a multiple of 16");
  says([](ux_net::Config& c) { c.image = {16, 16, 16}; }, "one axis must be above 16");
  says([](ux_net::Config& c) { c.kernel = 4; }, "kernel must be odd");
  says([](ux_net::Config& c) { c.widths = {48, 96}; }, "widths needs 4");
  says([](ux_net::Config& c) { c.drop_path = 1; }, "drop_path");
  says([](ux_net::Config& c) { c.decoder_norm = nn::NormKind::group, c.decoder_groups = 5; }, "decoder_groups 5");
}

// Drop path: a sample's branch is gone, or counts double at a rate of one half.
TEST(UxNet, DropPathDropsWholeSamples) {
  ux_net::Config config;
  config.layer_scale = 1;
  nn::ParameterStore store;
  const ux_net::Block block(nn::Builder(store, {.device = Device::ref, .dtype = DType::f64}), config, 4, 0.5);
  const Tensor x = test::draw({.shape = {16, 2, 3, 2, 4}}, DType::f64, Device::ref, 1);
  const auto in = x.to_vector(), whole = block(x, {}).to_vector();
  const auto got = block(x, {.training = true, .seed = 3, .step = step_number(0, x.device())}).to_vector();
  const size_t size = in.size() / 16;
  int dropped = 0;
  for (size_t n = 0; n < 16; ++n) {
    const bool gone = got[n * size] == in[n * size];
    dropped += gone ? 1 : 0;
    for (size_t i = n * size; i < (n + 1) * size; ++i)
      EXPECT_NEAR(got[i], gone ? in[i] : in[i] + 2 * (whole[i] - in[i]), 1e-12);
  }
  EXPECT_GT(dropped, 0);
  EXPECT_LT(dropped, 16);
}

}  // namespace
}  // namespace voxlab
