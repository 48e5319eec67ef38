#include "qanat/worker/account.h"

#include <gtest/gtest.h>

namespace qanat::worker {
namespace {

constexpr std::string_view kPasswd =
    "root:x:0:0:root:/root:/bin/sh\n"
    "# a comment\n"
    "broken line\n"
    "bad:x:notanumber:1::/:\n"
    "app:x:1000:1000:App:/home/app:/bin/sh\n"
    "42:x:7:8::/answer:\n";
constexpr std::string_view kGroup =
    "root:x:0:\nstaff:x:50:app,root\naudio:x:29:other,app\napp:x:1000:app\n";

TEST(Account, ByNameWithSupplementaryGroups) {
  auto account = find_account("app", kPasswd, kGroup);
  ASSERT_TRUE(account.ok());
  EXPECT_EQ(account->uid, 1000u);
  EXPECT_EQ(account->gid, 1000u);
  EXPECT_EQ(account->home, "/home/app");
  EXPECT_EQ(account->groups, (std::vector<gid_t>{50, 29}));
}

TEST(Account, ByNumberWithAndWithoutAnEntry) {
  EXPECT_EQ(find_account("1000", kPasswd, kGroup)->name, "app");
  auto unknown = find_account("12345", kPasswd, kGroup);
  ASSERT_TRUE(unknown.ok());
  EXPECT_EQ(unknown->uid, 12345u);
  EXPECT_EQ(unknown->gid, 0u);
  EXPECT_EQ(unknown->home, "/");
}

TEST(Account, ANamedGroupReplacesAllOthers) {
  auto account = find_account("app:audio", kPasswd, kGroup);
  ASSERT_TRUE(account.ok());
  EXPECT_EQ(account->gid, 29u);
  EXPECT_TRUE(account->groups.empty());
  EXPECT_EQ(find_account("5:6", "", "")->gid, 6u);
}

TEST(Account, EmptyIsRootEvenWithoutFiles) {
  auto account = find_account("", "", "");
  ASSERT_TRUE(account.ok());
  EXPECT_EQ(account->uid, 0u);
}

TEST(Account, UnknownNamesAreErrorsThatNameThem) {
  EXPECT_EQ(find_account("nemo", kPasswd, kGroup).code(), Code::kFailedPrecondition);
  EXPECT_NE(find_account("nemo", kPasswd, kGroup).status().message().find("nemo"),
            std::string::npos);
  EXPECT_EQ(find_account("app:none", kPasswd, kGroup).code(), Code::kFailedPrecondition);
  EXPECT_EQ(find_account("bad", kPasswd, kGroup).code(), Code::kFailedPrecondition);
  // The kernel's "do not change" is nobody's number.
  EXPECT_FALSE(find_account("4294967295", kPasswd, kGroup).ok());
}

}  // namespace
}  // namespace qanat::worker
