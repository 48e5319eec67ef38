#include "qanat/base/log.h"

#include <gtest/gtest.h>

#include "qanat/base/counters.h"

namespace qanat {
namespace {

class LogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    set_log_sink([this](std::string_view line) { text_ += line; });
  }
  void TearDown() override {
    set_log_sink({});
    set_log_level(LogLevel::kInfo);
  }
  std::string text_;
};

TEST_F(LogTest, OneLineAnEvent) {
  log_info("job finished",
           {{"pipeline", "train"}, {"datums", 3}, {"ok", true}, {"why", "a \"b\"\n"}});
  const size_t space = text_.find(' ');
  EXPECT_EQ(text_.substr(space),
            " info job finished pipeline=train datums=3 ok=true why=\"a \\\"b\\\"\\n\"\n");
  EXPECT_EQ(text_[space - 1], 'Z');
}

TEST_F(LogTest, LevelsFilter) {
  log_debug("unseen");
  EXPECT_EQ(text_, "");
  set_log_level(LogLevel::kDebug);
  log_debug("seen");
  EXPECT_NE(text_, "");
  set_log_level(LogLevel::kOff);
  text_.clear();
  log_error("unseen");
  EXPECT_EQ(text_, "");
  EXPECT_EQ(*parse_log_level("warning"), LogLevel::kWarning);
  EXPECT_FALSE(parse_log_level("loud").ok());
}

TEST(Counters, AreFoundByName) {
  Counter& apples = counter("test_apples_total", "Apples");
  apples.add();
  counter("test_apples_total", "ignored").add(2);
  EXPECT_EQ(apples.value(), 3U);
  gauge("test_pears", "Pears").set(5);
  gauge("test_pears", "Pears").add(-7);
  counter("test_by_kind_total{kind=\"a\"}", "Kinds").add(1);
  counter("test_by_kind_total{kind=\"b\"}", "Kinds").add(2);
  const std::string text = metrics_text();
  for (std::string_view expected :
       {"# HELP test_apples_total Apples\n# TYPE test_apples_total counter\ntest_apples_total 3\n",
        "# TYPE test_pears gauge\ntest_pears -2\n",
        "# TYPE test_by_kind_total counter\ntest_by_kind_total{kind=\"a\"} 1\n"
        "test_by_kind_total{kind=\"b\"} 2\n"}) {
    EXPECT_NE(text.find(expected), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace qanat
