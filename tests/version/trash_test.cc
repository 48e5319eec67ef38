// Deletions and restorations of which only a part has happened, or that others overtake.
#include <gtest/gtest.h>

#include <functional>
#include <utility>

#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/version/keys.h"
#include "qanat/version/versions.h"
#include "support/forwarding_meta.h"
#include "support/memory_meta.h"

namespace qanat::version {
namespace {

const std::string kProject = "default";
const RepoName kOrders{kProject, "orders"};

// Lets something happen, once, before a transaction that erases a key or a range from there on.
class MeanwhileMeta : public qanat::testing::ForwardingMeta {
 public:
  using ForwardingMeta::ForwardingMeta;
  Result<meta::TransactionResult> commit(meta::Transaction transaction) override {
    for (const meta::Operation& operation : transaction.then) {
      if (!meanwhile || operation.kind != meta::Operation::Kind::kDelete) continue;
      if (operation.range.begin.starts_with(before_erasing)) std::exchange(meanwhile, nullptr)();
    }
    return ForwardingMeta::commit(std::move(transaction));
  }

  std::string before_erasing;
  std::function<void()> meanwhile;
};

// From the n-th transaction on all are lost, or that one only.
class FaultyMeta : public qanat::testing::ForwardingMeta {
 public:
  FaultyMeta(meta::Store& store, int nth, bool all_after)
      : ForwardingMeta(store), left_(nth), all_after_(all_after) {}
  Result<meta::TransactionResult> commit(meta::Transaction transaction) override {
    if (ended_) return ForwardingMeta::commit(std::move(transaction));
    --left_;
    if (left_ == 0 || (left_ < 0 && all_after_)) return unavailable("of a test");
    return ForwardingMeta::commit(std::move(transaction));
  }
  void end() { ended_ = true; }

 private:
  bool ended_ = false;
  int left_;
  bool all_after_;
};

class TrashTest : public ::testing::Test {
 protected:
  TrashTest() {
    set_log_level(LogLevel::kOff);
    EXPECT_TRUE(versions_.start().ok());
    EXPECT_TRUE(versions_.create_repo(kOrders, "").ok());
  }
  ~TrashTest() override { set_log_level(LogLevel::kInfo); }

  static Versions server(meta::Store& meta, Clock& clock) {
    return Versions(meta, clock, [](std::string_view) -> Result<content::BlobReader*> {
      return internal_error("nothing is read");
    });
  }
  // An empty commit; gives its id.
  static std::string commit(Versions& versions, const std::string& branch = "master") {
    const auto open = versions.start_commit(kOrders, {.branch = branch, .parent = ""});
    EXPECT_TRUE(open.ok()) << open.status().to_string();
    if (!open.ok()) return "";
    const auto done = versions.finish_commit(kOrders, open->commit.id);
    EXPECT_TRUE(done.ok()) << done.status().to_string();
    return open->commit.id;
  }
  Status make_output(const std::string& pipeline) {
    return versions_
        .start_wave(kProject,
                    [&](int64_t) -> Result<WaveDraft> {
                      QANAT_ASSIGN_OR_RETURN(auto with,
                                             versions_.output_branch_transaction(
                                                 kProject, {pipeline, "master"}, pipeline, {}));
                      return WaveDraft{.members = {}, .with = std::move(with)};
                    })
        .status();
  }

  // Deletes the repo; before the transaction that takes `erased` away (a key, or where a range
  // begins), another server makes the repo anew, with a commit. That is not to be touched.
  void delete_overtaken(std::string_view erased, bool keep) {
    commit(versions_);
    commit(versions_);
    MeanwhileMeta slow(meta_);
    Versions stalled = server(slow, clock_);
    std::string made;
    slow.before_erasing = erased;
    slow.meanwhile = [&] {
      EXPECT_TRUE(versions_.create_repo(kOrders, "new").ok());
      made = commit(versions_);
    };
    EXPECT_TRUE(stalled.delete_repo(kOrders, false, "", keep).ok());
    ASSERT_FALSE(made.empty()) << erased;
    const auto head = versions_.resolve(kOrders, "master");
    ASSERT_TRUE(head.ok()) << head.status().to_string();
    EXPECT_EQ(head->id, made);
    EXPECT_EQ(versions_.list_commits(kOrders, {}, {})->items.size(), 1u);
    EXPECT_TRUE((*versions_.head_at_wave(kOrders, "master", 100)).has_value());
    EXPECT_EQ(versions_.list_trash(kProject)->size(), keep ? 1u : 0u);
    // What was deleted is whole.
    ASSERT_TRUE(versions_.delete_repo(kOrders, false, "", false).ok());
    EXPECT_EQ(versions_.undelete_repo(kOrders).ok(), keep);
    if (!keep) return;
    EXPECT_EQ(versions_.list_commits(kOrders, {}, {})->items.size(), 2u);
    ASSERT_TRUE(versions_.delete_repo(kOrders, false, "", false).ok());
  }

  ManualClock clock_;
  qanat::testing::MemoryMeta meta_{clock_};
  Versions versions_ = server(meta_, clock_);
};

// A draft holds the lock that the end of a restoration takes.
TEST_F(TrashTest, APipelineDoesNotWaitForARestorationOfItsRepo) {
  const std::string id = commit(versions_);
  ASSERT_TRUE(versions_.delete_repo(kOrders, false).ok());
  // As undelete_repo() leaves it when it comes no further.
  const TrashInfo trash = versions_.list_trash(kProject)->at(0);
  TrashRecord moved = trash.record;
  moved.state = "restoring";
  RepoRecord restoring{.created_ms = 1, .deleting = true, .trash = trash.id, .restoring = true};
  ASSERT_TRUE(meta_
                  .commit(meta::Transaction()
                              .put(repo_key(kProject, "orders"), encode(restoring))
                              .put(trash_key(kProject, moved.deleted_ms, trash.id), encode(moved)))
                  .ok());
  EXPECT_EQ(make_output("orders").code(), Code::kConflict);
  ASSERT_TRUE(versions_.settle_output(kProject, {"orders"}).ok());
  EXPECT_TRUE(versions_.resolve(kOrders, id).ok());
  EXPECT_EQ(make_output("orders").code(), Code::kFailedPrecondition) << "it is a user's";
  EXPECT_TRUE(versions_.settle_output(kProject, {"nothing"}).ok());
}

TEST_F(TrashTest, ADeletionThatWasOvertakenTakesNothingOfTheNewRepo) {
  for (const std::string& erased :
       {branches_prefix(kProject, "orders"), heads_prefix(kProject, "orders"),
        log_prefix(kProject, "orders"), commits_prefix(kProject, "orders"),
        children_prefix(kProject, "orders"), repo_key(kProject, "orders")}) {
    SCOPED_TRACE(erased);
    for (const bool keep : {true, false}) {
      delete_overtaken(erased, keep);
      if (HasFatalFailure()) return;
      ASSERT_TRUE(versions_.create_repo(kOrders, "").ok());
    }
  }
}

// Branches of a history so long that it moves in several steps. Each test makes many.
class BranchTrashTest : public TrashTest {
 protected:
  static constexpr int kWaves = 60;

  // A server with a branch `master`.
  struct World {
    World() : versions(server(meta, clock)) {
      EXPECT_TRUE(versions.start().ok());
      EXPECT_TRUE(versions.create_repo(kOrders, "").ok());
      for (int n = 0; n < kWaves; ++n) heads.push_back(commit(versions));
    }

    // The head in each of its waves; "" where there was none.
    std::vector<std::string> history() {
      std::vector<std::string> found;
      for (int64_t wave = 1; wave <= kWaves; ++wave) {
        const auto head = versions.head_at_wave(kOrders, "master", wave);
        EXPECT_TRUE(head.ok()) << head.status().to_string();
        found.push_back(head.ok() && *head ? (*head)->commit : "");
      }
      return found;
    }
    size_t keys(const std::string& prefix) {
      return meta.range(meta::KeyRange::prefix(prefix))->items.size();
    }

    ManualClock clock;
    qanat::testing::MemoryMeta meta{clock};
    Versions versions;
    std::vector<std::string> heads;
  };

  // Whether it was deleted or not, it is so altogether; and with `keep` it can come back.
  static void expect_whole(World& world, Versions& now, bool keep) {
    const std::vector<std::string> none(kWaves);
    if (now.inspect_branch(kOrders, "master").ok()) {
      EXPECT_EQ(world.history(), world.heads);
      EXPECT_EQ(world.keys(trash_prefix(kProject)), 0u);
      ASSERT_TRUE(now.delete_branch(kOrders, "master", false, "", keep).ok());
    }
    // Another of its name has nothing of it.
    const std::string made = commit(now);
    EXPECT_EQ(world.history(), none);
    EXPECT_EQ((*now.head_at_wave(kOrders, "master", 1000))->commit, made);
    ASSERT_TRUE(now.delete_branch(kOrders, "master", false, "", false).ok());
    ASSERT_TRUE(world.versions.start().ok());
    EXPECT_EQ(world.keys(heads_prefix(kProject, "orders")), 0u);
    EXPECT_EQ(world.keys(trash_prefix(kProject)), keep ? 1u : 0u);
    const Status back = now.undelete_branch(kOrders, "master");
    EXPECT_EQ(back.code(), keep ? Code::kOk : Code::kNotFound) << back.to_string();
    EXPECT_EQ(world.history(), keep ? world.heads : none);
    EXPECT_EQ(world.keys(trash_prefix(kProject)), 0u);
    EXPECT_EQ(world.keys(trash_items_prefix(kProject)), 0u);
  }

  // Does it with a fault at each of its transactions, until there is none to fail.
  static void at_each_fault(bool keep, const std::function<void(World&)>& before,
                            const std::function<Status(Versions&)>& change,
                            const std::function<void(Versions&)>& again) {
    for (const bool crash : {true, false}) {
      Status changed = unavailable("not yet");
      for (int n = 1; !changed.ok(); ++n) {
        SCOPED_TRACE(str_cat("fault ", n, keep ? ", kept" : "", crash ? ", crash" : ""));
        ASSERT_LT(n, 20);
        World world;
        before(world);
        FaultyMeta faulty(world.meta, n, crash);
        Versions failing = server(faulty, world.clock);
        changed = change(failing);
        faulty.end();
        if (!crash && !changed.ok()) again(failing);
        if (crash) {
          ASSERT_TRUE(world.versions.start().ok());
        }
        expect_whole(world, crash ? world.versions : failing, keep);
        if (HasFailure()) return;
      }
    }
  }
};

TEST_F(BranchTrashTest, WhateverFailsOfADeletionItsHistoryStaysWhole) {
  for (const bool keep : {true, false}) {
    at_each_fault(
        keep, [](World&) {},
        [&](Versions& versions) {
          return versions.delete_branch(kOrders, "master", false, "", keep);
        },
        [](Versions&) {});
  }
}

TEST_F(BranchTrashTest, WhateverFailsOfARestorationItsHistoryStaysWhole) {
  at_each_fault(
      true,
      [](World& world) {
        ASSERT_TRUE(world.versions.delete_branch(kOrders, "master", false).ok());
      },
      [&](Versions& versions) { return versions.undelete_branch(kOrders, "master"); },
      [](Versions& versions) {
        EXPECT_TRUE(versions.undelete_branch(kOrders, "master").ok()) << "asked again";
      });
}

TEST_F(BranchTrashTest, OneFromWhichAnotherDerivesMeanwhileKeepsItsHistory) {
  World world;
  const RepoName derived{kProject, "derived"};
  ASSERT_TRUE(world.versions.create_repo(derived, "").ok());
  MeanwhileMeta slow(world.meta);
  Versions stalled = server(slow, world.clock);
  slow.before_erasing = branch_key(kProject, "orders", "master");
  slow.meanwhile = [&] {
    EXPECT_TRUE(
        world.versions.put_branch(derived, "master", {.provenance = {{{"orders", "master"}}}})
            .ok());
  };
  EXPECT_EQ(stalled.delete_branch(kOrders, "master", false).code(), Code::kFailedPrecondition);
  EXPECT_FALSE(slow.meanwhile);
  EXPECT_EQ(world.history(), world.heads);
  EXPECT_EQ(world.keys(trash_prefix(kProject)), 0u);
}

// As above, of a branch: another server ends the deletion and makes it anew.
TEST_F(BranchTrashTest, ADeletionThatWasOvertakenTakesNothingOfTheNewBranch) {
  for (const bool keep : {true, false}) {
    World world;
    MeanwhileMeta slow(world.meta);
    Versions stalled = server(slow, world.clock);
    slow.before_erasing = heads_prefix(kProject, "orders", "master");
    std::string made;
    slow.meanwhile = [&] { made = commit(world.versions); };
    EXPECT_TRUE(stalled.delete_branch(kOrders, "master", false, "", keep).ok());
    ASSERT_FALSE(made.empty());
    EXPECT_EQ((*world.versions.head_at_wave(kOrders, "master", 1000))->commit, made);
    EXPECT_EQ(world.history(), std::vector<std::string>(kWaves));
    ASSERT_TRUE(world.versions.delete_branch(kOrders, "master", false, "", false).ok());
    EXPECT_EQ(world.versions.undelete_branch(kOrders, "master").ok(), keep);
    EXPECT_EQ(world.history(), keep ? world.heads : std::vector<std::string>(kWaves));
  }
}

}  // namespace
}  // namespace qanat::version
