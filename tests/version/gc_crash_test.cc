// The process dies at every write, sync, rename and removal of a garbage collection, on a disk that
// loses what was not synced: after a restart nothing live is lost, and nothing dead stays for ever.
#include <gtest/gtest.h>

#include <set>

#include "qanat/base/log.h"
#include "qanat/content/gc_collector.h"
#include "qanat/version/gc_roots.h"
#include "support/fault_file_system.h"
#include "support/seeds.h"
#include "version/bench.h"

namespace qanat::version {
namespace {

using qanat::testing::FaultFileSystem;

const RepoName kLive{"default", "live"};
const RepoName kDead{"default", "dead"};

std::string bytes_of(int n) {
  std::string bytes(3'000, '\0');
  uint64_t state = static_cast<uint64_t>(n) + 1;
  for (char& c : bytes) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    c = static_cast<char>(state >> 56);
  }
  return bytes;
}

// Commits of small packs, some of them dead, some half dead.
Status fill(Bench& bench) {
  QANAT_RETURN_IF_ERROR(bench.versions().create_repo(kLive, "").status());
  QANAT_RETURN_IF_ERROR(bench.versions().create_repo(kDead, "").status());
  for (int n = 0; n < 3; ++n) {
    QANAT_RETURN_IF_ERROR(
        bench.apply(kLive, "master", {put(str_cat("f", n), bytes_of(n))}).status());
  }
  for (int n = 10; n < 13; ++n) {
    // What the live repo has too lies in these packs.
    QANAT_RETURN_IF_ERROR(bench
                              .apply(kDead, "master",
                                     {put(str_cat("f", n), bytes_of(n)),
                                      put("more", bytes_of(20 + n)), put("shared", bytes_of(30))})
                              .status());
  }
  QANAT_RETURN_IF_ERROR(bench.apply(kLive, "master", {put("shared", bytes_of(30))}).status());
  return bench.versions().delete_repo(kDead, true, "", false);
}

Status collect(Bench& bench, ManualClock& clock) {
  QANAT_ASSIGN_OR_RETURN(auto* content, bench.contents().project("default"));
  VersionRoots roots(bench.meta(), clock, bench.versions());
  content::GcContext context;
  context.meta = &bench.meta();
  context.objects = &bench.objects();
  context.content = content;
  context.pins = &bench.session();
  context.clock = &clock;
  context.sources = {&roots};
  context.scratch = {&posix_file_system(), ::testing::TempDir(), 1 << 20};
  content::GcOptions options;
  options.now = true;
  options.settle_ms = 0;
  options.min_live = 1.0;
  options.few_small_packs = 2;
  const auto collector = content::GcCollector::create(std::move(context), options);
  for (int steps = 0; steps < 1000; ++steps) {
    QANAT_ASSIGN_OR_RETURN(const auto progress, collector->step());
    if (progress == content::GcCollector::Progress::kDone) return ok_status();
  }
  return internal_error("the collection does not end");
}

void expect_sound(FaultFileSystem& disk) {
  ManualClock clock;
  Bench bench(disk, "/data", clock);
  ASSERT_TRUE(bench.status.ok()) << bench.status.to_string();
  auto check = [&] {
    auto head = bench.versions().resolve(kLive, "master");
    ASSERT_TRUE(head.ok()) << head.status().to_string();
    for (int back = 0; back < 4; ++back) {
      auto commit = bench.versions().resolve(kLive, str_cat("master^", back));
      ASSERT_TRUE(commit.ok()) << commit.status().to_string();
      auto files = bench.files_of(*commit);
      ASSERT_TRUE(files.ok()) << files.status().to_string();
      for (const auto& [path, bytes] : *files) {
        EXPECT_EQ(bytes, path == "shared" ? bytes_of(30) : bytes_of(path[1] - '0')) << path;
      }
    }
  };
  check();
  if (::testing::Test::HasFatalFailure()) return;
  // The lease of the session and of the lock that died end; what is left over goes.
  clock.advance_ms(3'600'000);
  auto sessions = bench.meta().range(meta::KeyRange::prefix("/v1/session/"));
  ASSERT_TRUE(sessions.ok());
  for (const meta::KeyValue& item : sessions->items) {
    if (item.key != bench.session().mark().key) (void)bench.meta().revoke_lease(item.lease);
  }
  auto lock = bench.meta().get("/v1/gc/default/lock");
  ASSERT_TRUE(lock.ok());
  if (*lock) (void)bench.meta().revoke_lease((*lock)->lease);
  for (int round = 0; round < 3; ++round) {
    const Status collected = collect(bench, clock);
    ASSERT_TRUE(collected.ok()) << collected.to_string();
    clock.advance_ms(3'600'000);
  }
  check();
  auto* content = *bench.contents().project("default");
  std::set<std::string> named;
  auto scanner = content->blobs().index().scan("");
  ASSERT_TRUE(scanner.ok());
  size_t blobs = 0;
  while (true) {
    auto entry = (*scanner)->next();
    ASSERT_TRUE(entry.ok());
    if (!*entry) break;
    ++blobs;
    const auto location = chunk::parse_location((*entry)->value);
    named.insert(content::pack_object_key("default", *location->pack));
  }
  // 4 chunks of files, and the nodes of directories that are not inlined.
  EXPECT_GE(blobs, 4u);
  EXPECT_LE(blobs, 10u);
  std::set<std::string> packs;
  ASSERT_TRUE(bench.objects()
                  .list("packs/",
                        [&](const object::ObjectInfo& info) -> Status {
                          packs.insert(info.key);
                          return ok_status();
                        })
                  .ok());
  EXPECT_EQ(packs, named);
}

TEST(GcCrashTest, SlowEveryCrashPoint) {
  set_log_level(LogLevel::kOff);
  // The disk before the collection, once.
  FaultFileSystem first;
  ManualClock clock;
  {
    Bench bench(first, "/data", clock);
    ASSERT_TRUE(bench.status.ok());
    const Status filled = fill(bench);
    ASSERT_TRUE(filled.ok()) << filled.to_string();
  }
  int points = 0;
  for (uint64_t n = 1;; ++n, ++points) {
    auto disk = first.reboot(1);
    {
      Bench bench(*disk, "/data", clock);
      ASSERT_TRUE(bench.status.ok());
      disk->crash_at(n);
      (void)collect(bench, clock);
    }
    const bool crashed = disk->crashed();
    for (uint64_t seed : qanat::testing::reboot_seeds(n, 3)) {
      SCOPED_TRACE(str_cat("crash at ", n, ", seed ", seed));
      expect_sound(*disk->reboot(seed));
      if (::testing::Test::HasFailure()) return;
    }
    if (!crashed) break;
  }
  EXPECT_GT(points, 30);
  std::cout << points << " crash points\n";
  set_log_level(LogLevel::kInfo);
}

}  // namespace
}  // namespace qanat::version
