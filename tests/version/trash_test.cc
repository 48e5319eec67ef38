// Deletions and restorations of which only a part has happened, or that others overtake.
#include <gtest/gtest.h>

#include <functional>
#include <utility>

#include "qanat/base/log.h"
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
  ASSERT_TRUE(versions_.settle_repo(kOrders).ok());
  EXPECT_TRUE(versions_.resolve(kOrders, id).ok());
  EXPECT_EQ(make_output("orders").code(), Code::kFailedPrecondition) << "it is a user's";
  EXPECT_TRUE(versions_.settle_repo({kProject, "nothing"}).ok());
}

TEST_F(TrashTest, ADeletionThatWasOvertakenTakesNothingOfTheNewRepo) {
  for (const std::string& erased :
       {branches_prefix(kProject, "orders"), heads_prefix(kProject, "orders"),
        log_prefix(kProject, "orders"), commits_prefix(kProject, "orders"),
        repo_key(kProject, "orders")}) {
    SCOPED_TRACE(erased);
    for (const bool keep : {true, false}) {
      delete_overtaken(erased, keep);
      if (HasFatalFailure()) return;
      ASSERT_TRUE(versions_.create_repo(kOrders, "").ok());
    }
  }
}

}  // namespace
}  // namespace qanat::version
