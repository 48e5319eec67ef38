// Names, paths, UTF-8, and the small tools for strings.
#include <gtest/gtest.h>

#include "qanat/base/name.h"
#include "qanat/base/path.h"
#include "qanat/base/string.h"
#include "qanat/base/utf8.h"

namespace qanat {
namespace {

TEST(Name, ReposAndBranches) {
  EXPECT_TRUE(check_repo_name("orders_2024-Q1").ok());
  EXPECT_TRUE(check_repo_name("-").ok());
  EXPECT_FALSE(check_repo_name("").ok());
  EXPECT_FALSE(check_repo_name("a.b").ok());
  EXPECT_FALSE(check_project_name("caf\xC3\xA9").ok());
  EXPECT_TRUE(check_repo_name(std::string(200, 'a')).ok());
  EXPECT_FALSE(check_repo_name(std::string(201, 'a')).ok());
  const Status status = check_repo_name("my repo");
  EXPECT_EQ(status.message(), "\"my repo\" cannot name a repo: \" \" at position 3 is not allowed");
  EXPECT_NE(status.hint().find("letters, digits"), std::string::npos);

  EXPECT_TRUE(check_branch_name("master").ok());
  EXPECT_TRUE(check_branch_name(std::string(31, 'a')).ok());
  EXPECT_FALSE(check_branch_name(std::string(32, 'a')).ok());
  EXPECT_FALSE(check_branch_name("0123456789ABCDEF0123456789abcdef").ok());
  EXPECT_TRUE(check_branch_name(std::string(32, 'g')).ok());
}

TEST(Name, Pipelines) {
  EXPECT_TRUE(check_pipeline_name("a").ok());
  EXPECT_TRUE(check_pipeline_name("train_model-2").ok());
  EXPECT_FALSE(check_pipeline_name("-train").ok());
  EXPECT_FALSE(check_pipeline_name("train_").ok());
  EXPECT_TRUE(check_pipeline_name(std::string(50, 'a')).ok());
  EXPECT_FALSE(check_pipeline_name(std::string(51, 'a')).ok());
}

TEST(Utf8, AcceptsOnlyWellFormedText) {
  EXPECT_TRUE(is_utf8("plain \xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80"));
  for (std::string_view bad : {"\x80", "\xC3", "\xC0\xAF", "\xE0\x80\xAF", "\xED\xA0\x80",
                               "\xF4\x90\x80\x80", "\xFF", "\xF0\x9F\x98", "\xC3("}) {
    EXPECT_FALSE(is_utf8(bad));
  }
  size_t position = 0;
  EXPECT_EQ(decode_utf8("\xE2\x82\xAC!", position), U'\u20AC');
  EXPECT_EQ(position, 3U);
}

TEST(Path, Check) {
  EXPECT_TRUE(check_path("a/b.csv").ok());
  EXPECT_TRUE(check_path("a b/\xC3\xA9*?").ok());
  for (std::string_view bad :
       {"", "/a", "a/", "a//b", ".", "a/../b", "a/.", "a\nb", "a\x7F", "\xFF", "a/\xC2\x85"}) {
    EXPECT_EQ(check_path(bad).code(), Code::kInvalidArgument) << quoted(bad);
  }
  EXPECT_FALSE(check_path(std::string_view("a\0b", 3)).ok());
  EXPECT_TRUE(check_path(std::string(255, 'a')).ok());
  EXPECT_FALSE(check_path(std::string(256, 'a')).ok());
  std::string deep = "a";
  while (deep.size() < kMaxPathLength - 1) deep += "/a";
  EXPECT_TRUE(check_path(deep).ok());
  EXPECT_FALSE(check_path(deep + "/aa").ok());
  EXPECT_FALSE(check_path_part("a/b").ok());
}

TEST(Path, Parse) {
  EXPECT_EQ(*parse_path("/a/b"), "a/b");
  EXPECT_EQ(*parse_path("a/b/"), "a/b");
  EXPECT_EQ(*parse_path("/"), "");
  EXPECT_EQ(*parse_path(""), "");
  EXPECT_FALSE(parse_path("//a").ok());
  EXPECT_FALSE(parse_path("/a/../b").ok());
}

TEST(Path, Parts) {
  EXPECT_EQ(split_path("a/b/c"), (std::vector<std::string_view>{"a", "b", "c"}));
  EXPECT_TRUE(split_path("").empty());
  EXPECT_EQ(path_parent("a/b/c"), "a/b");
  EXPECT_EQ(path_parent("a"), "");
  EXPECT_EQ(path_name("a/b/c"), "c");
  EXPECT_EQ(path_name("a"), "a");
  EXPECT_EQ(join_path("a", "b"), "a/b");
  EXPECT_EQ(join_path("", "b"), "b");
  EXPECT_EQ(join_path("a", ""), "a");
  EXPECT_TRUE(path_is_within("a/b", "a"));
  EXPECT_TRUE(path_is_within("a", "a"));
  EXPECT_TRUE(path_is_within("a", ""));
  EXPECT_FALSE(path_is_within("ab", "a"));
}

TEST(String, Concatenates) {
  const std::string text = "t";
  EXPECT_EQ(str_cat("a", text, std::string_view("v"), 'c', 1, -2L, uint8_t{3}, 1.5, 0.1),
            "atvc1-231.50.1");
  EXPECT_EQ(str_cat(INT64_MIN, " ", UINT64_MAX), "-9223372036854775808 18446744073709551615");
  EXPECT_EQ(str_cat(), "");
  std::string out = "x";
  str_append(out, 1, "y");
  EXPECT_EQ(out, "x1y");
}

TEST(String, SplitsAndJoins) {
  EXPECT_EQ(split("a,,b", ','), (std::vector<std::string_view>{"a", "", "b"}));
  EXPECT_EQ(split("", ','), (std::vector<std::string_view>{""}));
  EXPECT_EQ(split_once("a=b=c", '='), (std::pair<std::string_view, std::string_view>("a", "b=c")));
  EXPECT_EQ(split_once("a", '='), (std::pair<std::string_view, std::string_view>("a", "")));
  EXPECT_EQ(join(std::vector<std::string>{"a", "b"}, ", "), "a, b");
  EXPECT_EQ(join(std::vector<std::string>{}, ", "), "");
  EXPECT_EQ(trim(" \t a b\r\n"), "a b");
  EXPECT_EQ(trim("  "), "");
  EXPECT_EQ(replace_all("a.b.c", ".", "--"), "a--b--c");
  EXPECT_EQ(to_lower("ABC-x"), "abc-x");
  EXPECT_TRUE(equal_ignoring_case("Content-Length", "content-length"));
  EXPECT_FALSE(equal_ignoring_case("a", "ab"));
}

TEST(String, ParsesNumbersWholly) {
  EXPECT_EQ(*parse_u64("18446744073709551615"), UINT64_MAX);
  EXPECT_EQ(*parse_i64("-5"), -5);
  EXPECT_EQ(*parse_double("2.5e3"), 2500);
  for (std::string_view bad : {"", "1x", " 1", "+1", "18446744073709551616", "-1"}) {
    EXPECT_EQ(parse_u64(bad).code(), Code::kInvalidArgument) << bad;
  }
  EXPECT_FALSE(parse_double("nan").ok());
  EXPECT_FALSE(parse_double("1e999").ok());
}

TEST(String, FormatsForPeople) {
  EXPECT_EQ(format_size(0), "0 B");
  EXPECT_EQ(format_size(1023), "1023 B");
  EXPECT_EQ(format_size(1536), "1.5 KiB");
  EXPECT_EQ(format_size((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(format_size(UINT64_MAX), "16.0 EiB");
  EXPECT_EQ(format_duration(850), "850ms");
  EXPECT_EQ(format_duration(4200), "4.2s");
  EXPECT_EQ(format_duration(59'999), "1m 00s");
  EXPECT_EQ(format_duration(185'000), "3m 05s");
  EXPECT_EQ(format_duration(7'800'000), "2h 10m");
  EXPECT_EQ(format_duration(442'800'000), "5d 3h");
  EXPECT_EQ(quoted("a\"b\\\n\x01"), "\"a\\\"b\\\\\\n\\x01\"");
}

}  // namespace
}  // namespace qanat
