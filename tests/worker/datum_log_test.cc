#include "qanat/worker/datum_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "qanat/base/string.h"
#include "qanat/worker/limit_events.h"

namespace qanat::worker {
namespace {

std::vector<std::string> texts(const std::string& log) {
  std::vector<std::string> texts;
  for (std::string_view line : split(log, '\n')) {
    if (!line.empty()) texts.push_back(api::parse_json<api::LogLine>(line)->text);
  }
  return texts;
}

TEST(DatumLog, CutsLinesAcrossWritesAndKeepsTheirOrder) {
  ManualClock clock;
  DatumLog log(1 << 20, clock);
  log.write(1, "one\ntw");
  log.write(2, "error\r\n");
  log.write(1, "o\n\nthree");
  log.remark("mine");
  EXPECT_EQ(texts(log.take_text()),
            (std::vector<std::string>{"one", "error", "two", "", "mine", "three"}));
}

TEST(DatumLog, KeepsHeadAndTail) {
  ManualClock clock;
  DatumLog log(2000, clock);
  for (int i = 0; i < 1000; ++i) log.write(1, str_cat("line ", i, "\n"));
  std::vector<std::string> kept = texts(log.take_text());
  EXPECT_LT(kept.size(), 80u);
  EXPECT_EQ(kept.front(), "line 0");
  EXPECT_EQ(kept.back(), "line 999");
  EXPECT_EQ(
      std::count_if(kept.begin(), kept.end(),
                    [](const std::string& s) { return s.find("left out") != std::string::npos; }),
      1);
}

TEST(DatumLog, BytesThatAreNotTextAreMarkedAndLongLinesCut) {
  ManualClock clock;
  DatumLog log(1 << 20, clock);
  log.write(1,
            "a\xff"
            "b\n");
  log.write(1, std::string(40'000, 'x') + "\n");
  std::vector<std::string> kept = texts(log.take_text());
  EXPECT_EQ(kept[0],
            "a\xEF\xBF\xBD"
            "b");
  ASSERT_EQ(kept.size(), 4u);
  EXPECT_EQ(kept[1].size() + kept[2].size() + kept[3].size(), 40'000u);
}

TEST(DatumLog, LiveLinesAreTakenOnce) {
  ManualClock clock;
  DatumLog log(1 << 20, clock);
  log.write(1, "before\n");
  log.set_live(true);
  log.write(1, "after\n");
  EXPECT_EQ(log.take_live().size(), 1u);
  EXPECT_TRUE(log.take_live().empty());
  EXPECT_EQ(texts(log.take_text()).size(), 2u);
}

TEST(LimitEvents, BothVersionsOfControlGroups) {
  EXPECT_EQ(parse_event_count("low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\n", "oom_kill"), 2u);
  EXPECT_EQ(parse_event_count("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", "oom_kill"), 5u);
  EXPECT_EQ(parse_event_count("", "max"), 0u);
}

TEST(LimitEvents, CgroupFilesAreLookedForWhereEnginesShowThem) {
  using Files = std::vector<std::string>;
  // v2 with a cgroup namespace of the container's own, and without.
  EXPECT_EQ(cgroup_files("0::/\n", "memory", "memory.oom_control", "memory.events"),
            (Files{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"}));
  EXPECT_EQ(cgroup_files("0::/docker/abc\n", "memory", "memory.oom_control", "memory.events")[0],
            "/sys/fs/cgroup/docker/abc/memory.events");
  // v1, several controllers in one hierarchy, and a path that leads out.
  EXPECT_EQ(cgroup_files("5:cpu,memory:/docker/abc\n0::/\n", "memory", "memory.oom_control",
                         "memory.events")[0],
            "/sys/fs/cgroup/memory/docker/abc/memory.oom_control");
  EXPECT_EQ(
      cgroup_files("5:memory:/../../x\n", "memory", "memory.oom_control", "memory.events").size(),
      2u);
}

}  // namespace
}  // namespace qanat::worker
