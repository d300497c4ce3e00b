#include "runtime/core/scope.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "runtime/core/error.h"
#include "runtime/core/visit.h"

namespace voxlab {
namespace {

TEST(Scopes, PathGrowsAndShrinks) {
  EXPECT_EQ(current_scope(), "");
  {
    const Scope a("encoder");
    {
      const Scope b("stage2"), none(""), c("epa");
      EXPECT_EQ(current_scope(), "encoder.stage2.epa");
    }
    EXPECT_EQ(current_scope(), "encoder");
  }
  EXPECT_EQ(current_scope(), "");
}

TEST(Scopes, AnExceptionLeavesThem) {
  try {
    const Scope a("encoder"), b("conv1");
    fail("conv", "expected 3 channels, got 4");
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "conv: expected 3 channels, got 4; at encoder.conv1");
    EXPECT_EQ(e.where(), "conv");
    EXPECT_EQ(e.message(), "expected 3 channels, got 4");
  }
  EXPECT_EQ(current_scope(), "");
}

TEST(Scopes, AnotherPathForAWhile) {
  const Scope a("loss");
  {
    const ScopePath path("encoder.stem");
    const Scope inner("conv");
    EXPECT_EQ(current_scope(), "encoder.stem.conv");
  }
  EXPECT_EQ(current_scope(), "loss");
}

TEST(Scopes, EveryThreadHasItsOwn) {
  const Scope a("main");
  std::string other = "?";
  std::thread([&] {
    const Scope b("worker");
    other = current_scope();
  }).join();
  EXPECT_EQ(other, "worker");
  EXPECT_EQ(current_scope(), "main");
}

enum class Colour : uint8_t { red, green };
constexpr auto enum_names(Colour) {
  return std::array{std::pair{std::string_view("red"), Colour::red},
                    std::pair{std::string_view("green"), Colour::green}};
}

TEST(NamedEnums, ReadAndWritten) {
  EXPECT_EQ(to_string(Colour::green), "green");
  EXPECT_EQ(parse_enum<Colour>("red"), Colour::red);
  try {
    parse_enum<Colour>("blue", "paint");
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "paint: 'blue' is none of red, green");
  }
}

}  // namespace
}  // namespace voxlab
