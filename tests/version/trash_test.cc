// Deletions and restorations of which only a part has happened, or that others overtake.
#include <gtest/gtest.h>

#include <optional>

#include "qanat/base/log.h"
#include "qanat/version/keys.h"
#include "qanat/version/versions.h"
#include "support/forwarding_meta.h"
#include "support/memory_meta.h"

namespace qanat::version {
namespace {

const std::string kProject = "default";
const RepoName kOrders{kProject, "orders"};

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

}  // namespace
}  // namespace qanat::version
