#include "qanat/cli/output.h"

#include <gtest/gtest.h>

namespace qanat::cli {
namespace {

TEST(Printable, KeepsWhatOnlyLooksAndSpellsOutWhatActs) {
  EXPECT_EQ(printable("12 naïve 数据\tx\ny"), "12 naïve 数据\tx\ny");
  EXPECT_EQ(printable("\x1b[1;31mred\x1b[0m"), "\x1b[1;31mred\x1b[0m");
  EXPECT_EQ(printable("\x1b[2J\x1b]0;title\a"), "\\x1b[2J\\x1b]0;title\\x07");
  EXPECT_EQ(printable("10%\r20%\x7f"), "10%\\r20%\\x7f");
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m \xc2\xa0"),
            "\\x9b31m \xc2\xa0");
  EXPECT_EQ(printable("\x1b"), "\\x1b");
  EXPECT_EQ(printable("\x1b[1"), "\\x1b[1");
  EXPECT_EQ(printable(std::string_view("a\0b", 3)), "a\\x00b");
}

}  // namespace
}  // namespace qanat::cli
