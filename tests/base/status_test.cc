#include "qanat/base/status.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

namespace qanat {
namespace {

TEST(Status, NamesOfCodesAreStable) {
  for (int i = 0; i <= static_cast<int>(Code::kInternal); ++i) {
    const Code code = static_cast<Code>(i);
    EXPECT_EQ(code_from_name(code_name(code)), code);
  }
  EXPECT_EQ(code_name(Code::kFailedPrecondition), "failed_precondition");
  EXPECT_EQ(code_from_name("unheard of"), Code::kInternal);
}

TEST(Status, ContextGoesInFront) {
  const Status status = not_found("no such file", "Look again.");
  const Status outer = status.with_context("pack 3f").with_context("put a");
  EXPECT_EQ(outer.message(), "put a: pack 3f: no such file");
  EXPECT_EQ(outer.hint(), "Look again.");
  EXPECT_EQ(outer.code(), Code::kNotFound);
  EXPECT_EQ(outer.to_string(), "not_found: put a: pack 3f: no such file (Look again.)");
  EXPECT_TRUE(ok_status().with_context("x").ok());
  EXPECT_EQ(ok_status().to_string(), "ok");
  EXPECT_EQ(status.with_hint("Other.").hint(), "Other.");
}

TEST(Status, FromErrno) {
  EXPECT_EQ(errno_status(ENOENT, "open x").code(), Code::kNotFound);
  EXPECT_EQ(errno_status(ENOSPC, "write x").code(), Code::kResourceExhausted);
  EXPECT_EQ(errno_status(EIO, "read x").code(), Code::kInternal);
  EXPECT_EQ(errno_status(ENOENT, "open x").message(), "open x: No such file or directory");
}

Result<int> half(int number) {
  if (number % 2 != 0) return invalid_argument("odd");
  return number / 2;
}

Result<int> quarter(int number) {
  QANAT_ASSIGN_OR_RETURN(int halved, half(number));
  QANAT_RETURN_IF_ERROR(half(halved).status());
  return half(halved);
}

TEST(Result, CarriesAValueOrAnError) {
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_EQ(quarter(6).code(), Code::kInvalidArgument);
  EXPECT_EQ(quarter(7).status().message(), "odd");
  EXPECT_EQ(quarter(7).value_or(-1), -1);
  Result<std::unique_ptr<int>> owned = std::make_unique<int>(5);
  const std::unique_ptr<int> taken = *std::move(owned);
  EXPECT_EQ(*taken, 5);
}

}  // namespace
}  // namespace qanat
