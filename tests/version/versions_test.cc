// Versions over a real meta store and real objects.
#include "qanat/version/versions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <thread>

#include "qanat/base/counters.h"
#include "qanat/base/id.h"
#include "qanat/base/random.h"
#include "qanat/version/keys.h"
#include "version/bench.h"

namespace qanat::version {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Files = std::map<std::string, std::string>;

// A fixed DAG: edges from branches to pipelines; a pipeline's output is <name>@master.
class TestDag : public DagView {
 public:
  std::map<std::string, std::vector<BranchName>> inputs;  // by pipeline, in topological order
  Result<std::vector<std::string>> downstream(std::string_view,
                                              const std::vector<BranchName>& changed,
                                              int64_t) override {
    std::set<BranchName> reached(changed.begin(), changed.end());
    std::vector<std::string> members;
    for (const auto& [pipeline, sources] : inputs) {
      for (const BranchName& source : sources) {
        if (!reached.contains(source)) continue;
        reached.insert({pipeline, "master"});
        members.push_back(pipeline);
        break;
      }
    }
    return members;
  }
};

class VersionsTest : public ::testing::Test {
 protected:
  VersionsTest()
      : folder_(str_cat(::testing::TempDir(), "/qanat-versions-", random_id())),
        bench_(std::make_unique<Bench>(posix_file_system(), folder_)) {
    EXPECT_TRUE(bench_->status.ok()) << bench_->status.to_string();
    versions().set_dag(&dag_);
    EXPECT_TRUE(versions().create_repo(repo_, "").ok());
  }
  ~VersionsTest() override {
    bench_.reset();
    std::filesystem::remove_all(folder_);
  }

  Versions& versions() { return bench_->versions(); }
  Written put_files(std::string_view ref, const std::vector<Change>& changes) {
    auto written = bench_->apply(repo_, ref, changes);
    EXPECT_TRUE(written.ok()) << written.status().to_string();
    return written.ok() ? *written : Written{};
  }
  std::string head(std::string_view ref) {
    auto commit = versions().resolve(repo_, ref);
    return commit.ok() ? commit->id : std::string(code_name(commit.code()));
  }
  Files files(std::string_view ref) {
    auto commit = versions().resolve(repo_, ref);
    EXPECT_TRUE(commit.ok()) << commit.status().to_string();
    if (!commit.ok()) return {};
    auto all = bench_->files_of(*commit);
    EXPECT_TRUE(all.ok()) << all.status().to_string();
    return all.ok() ? *all : Files{};
  }
  // Writes a pipeline's output for a wave, as its controller would.
  Status write_output(const WaveInfo& wave, const std::string& pipeline,
                      std::vector<CommitInput> inputs, std::string error = "") {
    OutputCommit output{.branch = {pipeline, "master"},
                        .id = wave.record.id,
                        .wave = wave.number,
                        .started_ms = 1,
                        .error = std::move(error),
                        .pipeline = pipeline,
                        .spec_version = 3,
                        .image = "sha256:ab",
                        .inputs = std::move(inputs)};
    QANAT_ASSIGN_OR_RETURN(auto transaction, versions().output_transaction("default", output));
    QANAT_ASSIGN_OR_RETURN(auto result, bench_->meta().commit(std::move(transaction)));
    return result.succeeded ? ok_status() : conflict("lost");
  }
  WaveInfo make_pipeline(const std::string& pipeline, const std::vector<BranchName>& inputs) {
    dag_.inputs[pipeline] = inputs;
    auto wave = versions().start_wave("default", [&](int64_t) -> Result<WaveDraft> {
      QANAT_ASSIGN_OR_RETURN(auto with, versions().output_branch_transaction(
                                            "default", {pipeline, "master"}, pipeline, inputs));
      return WaveDraft{.members = {pipeline}, .with = std::move(with)};
    });
    EXPECT_TRUE(wave.ok()) << wave.status().to_string();
    return wave.ok() ? *wave : WaveInfo{};
  }

  const std::string folder_;
  const RepoName repo_{"default", "orders"};
  TestDag dag_;
  std::unique_ptr<Bench> bench_;
};

TEST_F(VersionsTest, RepoLifecycle) {
  EXPECT_EQ(versions().create_repo(repo_, "").code(), Code::kAlreadyExists);
  EXPECT_EQ(versions().create_repo({"default", "a b"}, "").code(), Code::kInvalidArgument);
  EXPECT_EQ(versions().create_repo({"elsewhere", "x"}, "").code(), Code::kNotFound);
  ASSERT_TRUE(versions().create_repo({"default", "b"}, "second").ok());
  ASSERT_TRUE(versions().create_repo({"default", "c"}, "").ok());
  ASSERT_TRUE(versions().update_repo({"default", "b"}, "renewed").ok());
  EXPECT_EQ(versions().inspect_repo({"default", "b"})->record.description, "renewed");

  auto page = versions().list_repos("default", {.limit = 2});
  ASSERT_TRUE(page.ok());
  ASSERT_EQ(page->items.size(), 2u);
  // A repo made meanwhile does not show in the next page: the list is of one revision.
  ASSERT_TRUE(versions().create_repo({"default", "z"}, "").ok());
  auto rest = versions().list_repos("default", {.limit = 2, .token = page->next});
  ASSERT_TRUE(rest.ok());
  ASSERT_EQ(rest->items.size(), 1u);
  EXPECT_EQ(rest->items[0].repo, "orders");
  EXPECT_EQ(rest->next, "");
  EXPECT_EQ(versions().list_repos("default", {.token = "nonsense"}).code(), Code::kInvalidArgument);

  put_files("master", {put("f", "1")});
  ASSERT_TRUE(versions().delete_repo(repo_, false).ok());
  EXPECT_EQ(versions().inspect_repo(repo_).code(), Code::kNotFound);
  EXPECT_EQ(bench_->apply(repo_, "master", {put("f", "1")}).code(), Code::kNotFound);
  // Created again, it has nothing of the old one.
  ASSERT_TRUE(versions().create_repo(repo_, "").ok());
  EXPECT_TRUE(versions().list_branches(repo_, {})->items.empty());
  EXPECT_TRUE(versions().list_commits(repo_, {}, {})->items.empty());
  EXPECT_FALSE(versions().head_at_wave(repo_, "master", 100)->has_value());
}

TEST_F(VersionsTest, DeletionIsResumed) {
  put_files("master", {put("f", "1")});
  put_files("master", {put("f", "2")});
  // As a crash leaves it: marked only.
  RepoRecord record = versions().inspect_repo(repo_)->record;
  record.deleting = true;
  const std::string key = repo_key("default", "orders");
  ASSERT_TRUE(bench_->meta().commit(meta::Transaction().put(key, encode(record))).ok());
  EXPECT_EQ(versions().resolve(repo_, "master").code(), Code::kNotFound);
  EXPECT_TRUE(versions().list_repos("default", {})->items.empty());
  bench_.reset();
  bench_ = std::make_unique<Bench>(posix_file_system(), folder_);
  ASSERT_TRUE(bench_->status.ok());
  for (const char* prefix :
       {"/v1/repo/", "/v1/branch/", "/v1/head/", "/v1/commit/", "/v1/log/", "/v1/child/"}) {
    EXPECT_TRUE(bench_->meta().range(meta::KeyRange::prefix(prefix))->items.empty()) << prefix;
  }
}

TEST_F(VersionsTest, PutsMakeCommitsAndWaves) {
  Written first = put_files("master", {put("a", "1"), put("d/b", "2")});
  EXPECT_TRUE(first.commit.record.finished());
  ASSERT_TRUE(first.wave.has_value());
  EXPECT_EQ(first.wave->record.id, first.commit.id);
  EXPECT_EQ(first.wave->number, 1);
  Written second = put_files("master", {append("a", "+"), remove("d")});
  EXPECT_EQ(second.commit.record.parent, first.commit.id);
  EXPECT_EQ(second.wave->number, 2);
  EXPECT_EQ(files("master"), (Files{{"a", "1+"}}));
  EXPECT_EQ(files(first.commit.id), (Files{{"a", "1"}, {"d/b", "2"}}));
  EXPECT_EQ(second.commit.record.root.totals.count, 1u);

  EXPECT_EQ(versions().inspect_wave("default", second.commit.id)->number, 2);
  EXPECT_EQ(versions().inspect_wave("default", int64_t{1})->record.changed[0].commit,
            first.commit.id);
  EXPECT_EQ(*versions().last_wave("default"), 2);
  EXPECT_EQ((*versions().head_at_wave(repo_, "master", 1))->commit, first.commit.id);
  EXPECT_EQ((*versions().head_at_wave(repo_, "master", 9))->commit, second.commit.id);
  EXPECT_FALSE(versions().head_at_wave(repo_, "master", 0)->has_value());
  EXPECT_GE(bench_->meta().current_revision(), second.revision);

  // An edit that fails changes nothing.
  EXPECT_EQ(bench_->apply(repo_, "master", {put("a/b", "x")}).code(), Code::kFailedPrecondition);
  EXPECT_EQ(bench_->apply(repo_, "master^", {put("x", "x")}).code(), Code::kInvalidArgument);
  EXPECT_EQ(head("master"), second.commit.id);
}

TEST_F(VersionsTest, ASmallPutIsThreeSyncs) {
  put_files("master", {put("a", "1")});
  auto syncs = [] {
    return counter("qanat_object_file_syncs_total", "").value() +
           counter("qanat_object_directory_syncs_total", "").value() +
           counter("qanat_meta_log_syncs_total", "").value();
  };
  const uint64_t before = syncs();
  put_files("master", {put("a", "2")});
  EXPECT_EQ(syncs() - before, 3u);
}

TEST_F(VersionsTest, OpenCommits) {
  Written base = put_files("master", {put("a", "1")});
  auto open = versions().start_commit(repo_, {.description = "work"});
  ASSERT_TRUE(open.ok());
  const std::string id = open->commit.id;
  EXPECT_FALSE(open->wave.has_value());
  Status again = versions().start_commit(repo_, {}).status();
  EXPECT_EQ(again.code(), Code::kFailedPrecondition);
  EXPECT_THAT(again.message(), HasSubstr(id));

  put_files("master", {put("b", "2")});
  put_files(id, {put("c", "3")});
  EXPECT_EQ(head("master"), base.commit.id);
  EXPECT_EQ(files(id), (Files{{"a", "1"}, {"b", "2"}, {"c", "3"}}));
  EXPECT_EQ((*versions().resolve_for_write(repo_, "master"))->id, id);
  EXPECT_EQ(versions().put_branch(repo_, "master", {.head = ""}).code(), Code::kFailedPrecondition);
  EXPECT_EQ(versions().put_branch(repo_, "other", {.head = id}).code(), Code::kFailedPrecondition);

  auto finished = versions().finish_commit(repo_, "master", "done");
  ASSERT_TRUE(finished.ok()) << finished.status().to_string();
  EXPECT_EQ(finished->commit.id, id);
  EXPECT_EQ(finished->commit.record.description, "done");
  EXPECT_EQ(finished->wave->record.id, id);
  EXPECT_EQ(finished->commit.record.wave, finished->wave->number);
  EXPECT_EQ(head("master"), id);
  EXPECT_EQ(head("master^"), base.commit.id);
  EXPECT_EQ(versions().finish_commit(repo_, id).code(), Code::kFailedPrecondition);
  EXPECT_EQ(versions().finish_commit(repo_, "master").code(), Code::kFailedPrecondition);
  EXPECT_EQ(bench_->apply(repo_, id, {put("d", "4")}).code(), Code::kFailedPrecondition);
}

TEST_F(VersionsTest, DetachedCommits) {
  Written base = put_files("master", {put("a", "1")});
  auto open = versions().start_commit(repo_, {.branch = "", .parent = "master"});
  ASSERT_TRUE(open.ok());
  put_files(open->commit.id, {put("b", "2")});
  auto finished = versions().finish_commit(repo_, open->commit.id);
  ASSERT_TRUE(finished.ok());
  EXPECT_FALSE(finished->wave.has_value());
  EXPECT_EQ(head("master"), base.commit.id);
  EXPECT_EQ(head(open->commit.id + "^"), base.commit.id);
  EXPECT_TRUE(versions().put_branch(repo_, "side", {.head = open->commit.id}).ok());
  EXPECT_EQ(files("side"), (Files{{"a", "1"}, {"b", "2"}}));
}

TEST_F(VersionsTest, Ancestry) {
  std::vector<std::string> ids;
  for (int i = 0; i < 70; ++i) {
    ids.push_back(put_files("master", {put("f", std::to_string(i))}).commit.id);
  }
  for (int back = 0; back < 70; ++back) {
    const auto at = static_cast<size_t>(69 - back);
    EXPECT_EQ(head(str_cat("master^", back)), ids[at]);
    EXPECT_EQ(head(str_cat("master.", at + 1)), ids[at]);
  }
  EXPECT_EQ(head("master^70"), "not_found");
  EXPECT_EQ(head("master.71"), "not_found");
  EXPECT_EQ(head("master^999999999"), "not_found");
  EXPECT_EQ(head(ids[10] + "^^"), ids[8]);
  EXPECT_EQ(head("nobranch"), "not_found");
  EXPECT_EQ(head(std::string(32, 'a')), "not_found");
  EXPECT_EQ(head("a/b"), "invalid_argument");

  auto page = versions().list_commits(repo_, {.ref = "master", .from = "master^5"}, {.limit = 3});
  ASSERT_TRUE(page.ok());
  ASSERT_EQ(page->items.size(), 3u);
  EXPECT_EQ(page->items[0].id, ids[69]);
  page = versions().list_commits(repo_, {.ref = "master", .from = "master^5"},
                                 {.limit = 3, .token = page->next});
  ASSERT_EQ(page->items.size(), 2u);
  EXPECT_EQ(page->items[1].id, ids[65]);
  EXPECT_EQ(page->next, "");
  auto all = versions().list_commits(repo_, {}, {.limit = 200});
  ASSERT_EQ(all->items.size(), 70u);
  for (size_t i = 0; i < 70; ++i) EXPECT_EQ(all->items[i].id, ids[69 - i]);

  auto children = versions().children(repo_, *versions().resolve(repo_, ids[40]));
  ASSERT_TRUE(children.ok());
  ASSERT_EQ(children->size(), 1u);
  EXPECT_EQ((*children)[0].id, ids[41]);
}

TEST_F(VersionsTest, BranchesMove) {
  dag_.inputs["p"] = {{"orders", "master"}};
  std::string first = put_files("staging", {put("f", "1")}).commit.id;
  std::string second = put_files("staging", {put("f", "2")}).commit.id;
  auto moved = versions().put_branch(repo_, "master", {.head = "staging"});
  ASSERT_TRUE(moved.ok()) << moved.status().to_string();
  ASSERT_TRUE(moved->wave.has_value());
  EXPECT_NE(moved->wave->record.id, second);
  EXPECT_THAT(moved->wave->record.members, ElementsAre("p"));
  EXPECT_EQ(head("master"), second);
  // Backward, and the same head again: no wave.
  auto back = versions().put_branch(repo_, "master", {.head = "staging^"});
  ASSERT_TRUE(back->wave.has_value());
  EXPECT_EQ(head("master"), first);
  auto same = versions().put_branch(repo_, "master", {.head = first});
  EXPECT_FALSE(same->wave.has_value());
  EXPECT_EQ((*versions().head_at_wave(repo_, "master", moved->wave->number))->commit, second);
  auto emptied = versions().put_branch(repo_, "master", {.head = ""});
  EXPECT_EQ(head("master"), "not_found");
  EXPECT_FALSE(versions().head_at_wave(repo_, "master", emptied->wave->number)->has_value());

  EXPECT_EQ(versions().put_branch(repo_, std::string(32, 'a'), {}).code(), Code::kInvalidArgument);
  EXPECT_EQ(versions().list_branches(repo_, {})->items.size(), 2u);
  ASSERT_TRUE(versions().delete_branch(repo_, "master", false).ok());
  EXPECT_EQ(versions().delete_branch(repo_, "master", false).code(), Code::kNotFound);
  EXPECT_EQ(versions().inspect_branch(repo_, "master").code(), Code::kNotFound);
  ASSERT_TRUE(versions().put_branch(repo_, "master", {}).ok());
  EXPECT_FALSE(versions().head_at_wave(repo_, "master", 100)->has_value());
  EXPECT_TRUE(versions().resolve(repo_, second).ok());
}

TEST_F(VersionsTest, ProvenanceOfBranchesProtects) {
  const RepoName derived{"default", "derived"};
  ASSERT_TRUE(versions().create_repo(derived, "").ok());
  put_files("master", {put("f", "1")});
  ASSERT_TRUE(
      versions().put_branch(derived, "master", {.provenance = {{{"orders", "master"}}}}).ok());
  EXPECT_EQ(
      versions().put_branch(repo_, "master", {.provenance = {{{"derived", "master"}}}}).code(),
      Code::kFailedPrecondition);
  EXPECT_EQ(versions().put_branch(repo_, "x", {.provenance = {{{"orders", "master"}}}}).code(),
            Code::kFailedPrecondition);
  EXPECT_EQ(versions().put_branch(repo_, "x", {.provenance = {{{"missing", "master"}}}}).code(),
            Code::kNotFound);
  Status refused = versions().delete_branch(repo_, "master", false);
  EXPECT_EQ(refused.code(), Code::kFailedPrecondition);
  EXPECT_THAT(refused.message(), HasSubstr("derived@master"));
  EXPECT_EQ(versions().delete_repo(repo_, false).code(), Code::kFailedPrecondition);
  EXPECT_TRUE(versions().delete_branch(repo_, "master", true).ok());
  EXPECT_TRUE(versions().delete_repo(repo_, true).ok());
}

TEST_F(VersionsTest, OutputsOfPipelines) {
  WaveInfo created = make_pipeline("p", {{"orders", "master"}});
  EXPECT_EQ(created.record.cause, WaveCause::kPipeline);
  const RepoName output{"default", "p"};
  EXPECT_EQ(versions().inspect_repo(output)->record.pipeline, "p");
  EXPECT_EQ(bench_->apply(output, "master", {put("f", "1")}).code(), Code::kFailedPrecondition);
  EXPECT_EQ(versions().start_commit(output, {}).code(), Code::kFailedPrecondition);
  EXPECT_EQ(versions().put_branch(output, "master", {.head = ""}).code(),
            Code::kFailedPrecondition);
  EXPECT_EQ(versions().delete_repo(output, true).code(), Code::kFailedPrecondition);
  EXPECT_EQ(versions().delete_branch(output, "master", true).code(), Code::kFailedPrecondition);

  ASSERT_TRUE(write_output(created, "p", {}).ok());
  Written input = put_files("master", {put("f", "1")});
  EXPECT_THAT(input.wave->record.members, ElementsAre("p"));
  ASSERT_TRUE(write_output(*input.wave, "p",
                           {{"orders", "orders", "master", input.commit.id, input.wave->number}})
                  .ok());
  auto commit = versions().resolve(output, "master");
  ASSERT_TRUE(commit.ok());
  EXPECT_EQ(commit->id, input.commit.id);
  EXPECT_EQ(commit->record.origin, CommitOrigin::kPipeline);
  EXPECT_EQ(commit->record.parent, created.record.id);
  EXPECT_EQ(commit->record.spec_version, 3);
  EXPECT_EQ((*versions().head_at_wave(output, "master", input.wave->number))->wave,
            input.wave->number);
  // Not twice, and not backward.
  EXPECT_EQ(write_output(*input.wave, "p", {}).code(), Code::kFailedPrecondition);
  EXPECT_EQ(write_output(created, "p", {}).code(), Code::kFailedPrecondition);
  // A failed one is there by id and moves nothing.
  Written bad = put_files("master", {put("f", "2")});
  ASSERT_TRUE(write_output(*bad.wave, "p", {}, "datum x failed").ok());
  EXPECT_EQ(versions().resolve(output, "master")->id, input.commit.id);
  EXPECT_EQ(versions().resolve(output, bad.commit.id)->record.error, "datum x failed");
  EXPECT_EQ(versions().commits_of_wave("default", *bad.wave)->size(), 2u);
  EXPECT_EQ(versions().list_commits(output, {}, {})->items.size(), 3u);
  // A pointer beside the output is the user's.
  EXPECT_TRUE(versions().put_branch(output, "release", {.head = "master"}).ok());
  // The input cannot be deleted beneath it.
  EXPECT_EQ(versions().delete_repo(repo_, false).code(), Code::kFailedPrecondition);
  EXPECT_TRUE(versions().delete_repo(output, false, "p").ok());
  EXPECT_TRUE(versions().delete_repo(repo_, false).ok());
}

TEST_F(VersionsTest, AReleasedRepoIsTheUsers) {
  WaveInfo created = make_pipeline("p", {{"orders", "master"}});
  ASSERT_TRUE(write_output(created, "p", {}).ok());
  const RepoName output{"default", "p"};
  ASSERT_TRUE(versions().release_repo(output, "someone else").ok());
  EXPECT_EQ(bench_->apply(output, "master", {put("f", "1")}).code(), Code::kFailedPrecondition);
  ASSERT_TRUE(versions().release_repo(output, "p").ok());
  EXPECT_TRUE(bench_->apply(output, "master", {put("f", "1")}).ok());
  EXPECT_TRUE(versions().put_branch(output, "master", {.head = "master^"}).ok());
  EXPECT_TRUE(versions().delete_repo(repo_, false).ok());
}

TEST_F(VersionsTest, OpenCommitsAreThrownAway) {
  Written base = put_files("master", {put("a", "1")});
  auto open = versions().start_commit(repo_, {});
  put_files("master", {put("a", "2")});
  ASSERT_TRUE(versions().discard_commit(repo_, "master").ok());
  EXPECT_EQ(files("master"), (Files{{"a", "1"}}));
  EXPECT_EQ(head(open->commit.id), "not_found");
  EXPECT_EQ(versions().discard_commit(repo_, base.commit.id).code(), Code::kFailedPrecondition);
  EXPECT_EQ(versions().list_commits(repo_, {}, {})->items.size(), 1u);
  put_files("master", {put("a", "3")});
  EXPECT_EQ(head("master^"), base.commit.id);
}

TEST_F(VersionsTest, ProvenanceBothWays) {
  // orders -> a -> b; b also reads customers.
  const RepoName customers{"default", "customers"};
  ASSERT_TRUE(versions().create_repo(customers, "").ok());
  Written vip = *bench_->apply(customers, "master", {put("c", "1")});
  make_pipeline("a", {{"orders", "master"}});
  make_pipeline("b", {{"a", "master"}, {"customers", "master"}});
  std::vector<Written> orders;
  for (int i = 0; i < 3; ++i) {
    Written order = put_files("master", {put("f", std::to_string(i))});
    EXPECT_THAT(order.wave->record.members, ElementsAre("a", "b"));
    ASSERT_TRUE(
        write_output(*order.wave, "a", {{"orders", "orders", "master", order.commit.id}}).ok());
    ASSERT_TRUE(write_output(*order.wave, "b",
                             {{"a", "a", "master", order.commit.id},
                              {"customers", "customers", "master", vip.commit.id}})
                    .ok());
    orders.push_back(order);
  }
  auto names = [](const std::vector<CommitInfo>& commits) {
    std::vector<std::string> texts;
    for (const auto& commit : commits) texts.push_back(commit.repo + "@" + commit.id);
    return texts;
  };
  auto of_b = versions().provenance({"default", "b"}, orders[1].commit.id);
  ASSERT_TRUE(of_b.ok());
  EXPECT_THAT(names(of_b->upstream),
              ElementsAre("a@" + orders[1].commit.id, "customers@" + vip.commit.id,
                          "orders@" + orders[1].commit.id));
  EXPECT_TRUE(of_b->downstream.empty());
  auto of_order = versions().provenance(repo_, orders[1].commit.id);
  EXPECT_THAT(names(of_order->downstream),
              ElementsAre("a@" + orders[1].commit.id, "b@" + orders[1].commit.id));
  auto of_customers = versions().provenance(customers, "master");
  EXPECT_THAT(names(of_customers->downstream),
              ElementsAre("b@" + orders[0].commit.id, "b@" + orders[1].commit.id,
                          "b@" + orders[2].commit.id));
  auto cut = versions().provenance(customers, "master", 2);
  EXPECT_EQ(cut->downstream.size(), 2u);
  EXPECT_TRUE(cut->more);
}

TEST_F(VersionsTest, HistoryOfAPath) {
  Written added = put_files("master", {put("d/f", "1"), put("g", "1")});
  put_files("master", {put("g", "2")});
  Written changed = put_files("master", {put("d/f", "2")});
  Written deleted = put_files("master", {remove("d/f")});
  put_files("master", {put("g", "3")});
  auto history = versions().history(repo_, "master", "/d/f", {});
  ASSERT_TRUE(history.ok()) << history.status().to_string();
  ASSERT_EQ(history->changes.size(), 3u);
  EXPECT_EQ(history->changes[0].commit.id, deleted.commit.id);
  EXPECT_EQ(history->changes[0].kind, PathChange::Kind::kDeleted);
  EXPECT_EQ(history->changes[1].commit.id, changed.commit.id);
  EXPECT_EQ(history->changes[1].kind, PathChange::Kind::kChanged);
  EXPECT_EQ(history->changes[2].commit.id, added.commit.id);
  EXPECT_EQ(history->changes[2].kind, PathChange::Kind::kAdded);
  EXPECT_EQ(history->changes[2].entry->bytes(), 1u);
  EXPECT_EQ(history->searched, 5);
  EXPECT_EQ(history->next, "");
  // In pages.
  history = versions().history(repo_, "master", "d/f", {.limit = 1});
  ASSERT_EQ(history->changes.size(), 1u);
  history = versions().history(repo_, history->next, "d/f", {.limit = 5});
  EXPECT_EQ(history->changes.size(), 2u);
  history = versions().history(repo_, "master", "d/f", {.search_limit = 1});
  EXPECT_TRUE(history->changes.empty());
  EXPECT_FALSE(history->next.empty());
  EXPECT_EQ(versions().history(repo_, "master", "", {})->changes.size(), 5u);
}

TEST_F(VersionsTest, Watches) {
  Mutex mutex;
  CondVar changed;
  std::vector<std::string> waves, commits;
  auto watch_waves = versions().watch_waves(
      "default", 0, [&](const Status&, int64_t, const std::vector<WaveInfo>& seen) {
        MutexLock lock(mutex);
        for (const auto& wave : seen) waves.push_back(wave.record.id);
        changed.notify_all();
      });
  auto watch_commits = versions().watch_commits(
      {"default", ""}, 0, [&](const Status&, int64_t, const std::vector<CommitInfo>& seen) {
        MutexLock lock(mutex);
        for (const auto& commit : seen) {
          commits.push_back(commit.repo + (commit.record.finished() ? " finished" : " open"));
        }
        changed.notify_all();
      });
  ASSERT_TRUE(watch_waves.ok() && watch_commits.ok());
  auto open = versions().start_commit(repo_, {});
  (void)versions().finish_commit(repo_, "master");
  MutexLock lock(mutex);
  while (waves.empty() || commits.size() < 2) {
    if (!changed.wait_for_ms(mutex, 10'000)) break;
  }
  EXPECT_THAT(waves, ElementsAre(open->commit.id));
  EXPECT_THAT(commits, ElementsAre("orders open", "orders finished"));
}

// 16 threads put to one branch, half of them through a second object (as another server would):
// every put is one commit, whole, none is lost, and they form one chain.
TEST_F(VersionsTest, ConcurrentPuts) {
  constexpr int kThreads = 16, kPuts = 4;
  Versions other(bench_->meta(), real_clock(),
                 [&](std::string_view project) -> Result<content::BlobReader*> {
                   QANAT_ASSIGN_OR_RETURN(auto* content, bench_->contents().project(project));
                   return &content->blobs();
                 });
  std::vector<std::thread> threads;
  std::atomic<int> failed = 0;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kPuts; ++i) {
        auto* content = *bench_->contents().project("default");
        auto writer = content->new_writer();
        auto file = *content::write_file(*writer, str_cat(t, ".", i));
        Versions& through = t % 2 == 0 ? versions() : other;
        auto written = through.apply(repo_, "master", *writer, [&](const content::TreeRoot& base) {
          content::TreeEditor editor(*writer, base);
          EXPECT_TRUE(editor.apply(content::TreeEdit::put(str_cat("a/", t), file)).ok());
          EXPECT_TRUE(editor.apply(content::TreeEdit::put(str_cat("b/", t, "-", i), file)).ok());
          return editor.finish();
        });
        if (!written.ok()) {
          ADD_FAILURE() << written.status().to_string();
          ++failed;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  ASSERT_EQ(failed, 0);
  auto commits = versions().list_commits(repo_, {.ref = "master"}, {.limit = 1'000});
  ASSERT_EQ(commits->items.size(), static_cast<size_t>(kThreads * kPuts));
  EXPECT_EQ(*versions().last_wave("default"), kThreads * kPuts);
  Files all = files("master");
  EXPECT_EQ(all.size(), static_cast<size_t>(kThreads * (kPuts + 1)));
  for (int t = 0; t < kThreads; ++t) {
    EXPECT_EQ(all[str_cat("a/", t)], str_cat(t, ".", kPuts - 1));
    for (int i = 0; i < kPuts; ++i) EXPECT_EQ(all[str_cat("b/", t, "-", i)], str_cat(t, ".", i));
  }
  // Each commit adds one file under b and changes one under a.
  for (size_t i = 0; i < commits->items.size(); ++i) {
    const auto& commit = commits->items[i];
    EXPECT_EQ(commit.record.depth, static_cast<int64_t>(commits->items.size() - i));
    EXPECT_EQ(commit.record.wave, commit.record.depth);
  }
}

// The same files have the same root, whatever the order of puts, appends and deletes, and whether
// one commit made them or many.
TEST_F(VersionsTest, EqualFilesHaveEqualRoots) {
  SeededRandom random(11);
  Files wanted;
  for (int i = 0; i < 40; ++i) {
    wanted[str_cat("d", i % 3, "/f", i)] = random.bytes(random.below(i == 7 ? 700'000 : 3'000) + 2);
  }
  std::set<Hash> roots;
  for (int way = 0; way < 4; ++way) {
    const std::string branch = str_cat("way", way);
    std::vector<Change> changes;
    for (const auto& [path, bytes] : wanted) {
      if (way == 0 || random.below(2) == 0) {
        changes.push_back(put(path, bytes));
      } else {
        const size_t cut = random.below(bytes.size());
        changes.push_back(put(path, bytes.substr(0, cut)));
        changes.push_back(append(path, bytes.substr(cut)));
      }
    }
    if (way > 0) {
      changes.insert(changes.begin(), put("d1/noise", "x"));
      changes.insert(changes.begin(), put("noise/of/all/kinds", "x"));
      changes.push_back(remove("d1/noise"));
      changes.push_back(remove("noise"));
    }
    const size_t step = way < 2 ? changes.size() : 5 * static_cast<size_t>(way);
    for (size_t at = 0; at < changes.size(); at += step) {
      put_files(branch,
                {changes.begin() + static_cast<ptrdiff_t>(at),
                 changes.begin() + static_cast<ptrdiff_t>(std::min(at + step, changes.size()))});
    }
    EXPECT_EQ(files(branch), wanted);
    roots.insert(content::tree_hash(versions().resolve(repo_, branch)->record.root));
  }
  EXPECT_EQ(roots.size(), 1u);
}

TEST_F(VersionsTest, WritesOfALostSessionAreRefused) {
  put_files("master", {put("f", "1")});
  auto sessions = bench_->meta().range(meta::KeyRange::prefix("/v1/session/"));
  ASSERT_EQ(sessions->items.size(), 1u);
  auto* content = *bench_->contents().project("default");
  auto writer = content->new_writer();
  auto file = *content::write_file(*writer, "2");
  ASSERT_TRUE(bench_->meta().revoke_lease(sessions->items[0].lease).ok());
  auto written = versions().apply(repo_, "master", *writer, [&](const content::TreeRoot& base) {
    content::TreeEditor editor(*writer, base);
    EXPECT_TRUE(editor.apply(content::TreeEdit::put("f", file)).ok());
    return editor.finish();
  });
  EXPECT_EQ(written.code(), Code::kUnavailable) << written.status().to_string();
  EXPECT_EQ(files("master"), (Files{{"f", "1"}}));
}

}  // namespace
}  // namespace qanat::version
