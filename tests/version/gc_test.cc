// What collections tell and hold on to, one at a time; their safety is gc_sim_test's.
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <set>
#include <utility>

#include "qanat/base/random.h"
#include "qanat/content/edit_buffer.h"
#include "qanat/content/file_writer.h"
#include "qanat/content/gc_collector.h"
#include "qanat/content/uploads.h"
#include "qanat/version/commit_sets.h"
#include "qanat/version/gc_roots.h"
#include "qanat/version/keys.h"
#include "qanat/version/session.h"
#include "qanat/version/versions.h"
#include "support/forwarding_meta.h"
#include "support/memory_meta.h"
#include "support/memory_objects.h"

namespace qanat::version {
namespace {

using content::GcCollector;

const std::string kProject = "default";
const RepoName kOrders{kProject, "orders"};
const RepoName kOther{kProject, "other"};

// Roots whose revision is forgotten as soon as the marking is one step further.
class ForgetfulRoots : public content::RootSource {
 public:
  explicit ForgetfulRoots(content::RootSource& roots) : roots_(roots) {}
  Status prepare(std::string_view project, bool now) override {
    return roots_.prepare(project, now);
  }
  Status visit_roots(const Request& request,
                     const std::function<Status(const content::Holder&, const content::Reference&)>&
                         visit) override {
    if (revision_ != request.revision) {
      revision_ = request.revision;
      seen_at_ = steps;
    }
    if (steps != seen_at_) return gone("the revision is compacted");
    return roots_.visit_roots(request, visit);
  }
  Status visit_references(content::NodeUse use, const content::Blob& node,
                          const content::ReferenceVisitor& visit) override {
    return roots_.visit_references(use, node, visit);
  }
  Status visit_result(std::string_view value, const content::ReferenceVisitor& visit) override {
    return roots_.visit_result(value, visit);
  }

  int steps = 0;

 private:
  content::RootSource& roots_;
  int64_t revision_ = -1;
  int seen_at_ = 0;
};

// A chunk for each holder.
class ManyRoots : public content::RootSource {
 public:
  Status prepare(std::string_view, bool) override { return ok_status(); }
  Status visit_roots(const Request& request,
                     const std::function<Status(const content::Holder&, const content::Reference&)>&
                         visit) override {
    if (request.rank != content::RootRank::kVersions) return ok_status();
    for (size_t n = 0; n < refs.size(); ++n) {
      QANAT_RETURN_IF_ERROR(visit({"branch", str_cat(n)}, {refs[n], content::NodeUse::kContent}));
    }
    return ok_status();
  }
  Status visit_references(content::NodeUse, const content::Blob&,
                          const content::ReferenceVisitor&) override {
    return not_found("no nodes");
  }
  Status visit_result(std::string_view, const content::ReferenceVisitor&) override {
    return not_found("no results");
  }

  std::vector<chunk::BlobRef> refs;
};

// Calls `hook` once, before a transaction that erases a key.
class HookedMeta : public qanat::testing::ForwardingMeta {
 public:
  using ForwardingMeta::ForwardingMeta;
  Result<meta::TransactionResult> commit(meta::Transaction transaction) override {
    for (const meta::Operation& operation : transaction.then) {
      if (operation.kind != meta::Operation::Kind::kDelete ||
          operation.range.begin != before_erasing || !hook) {
        continue;
      }
      std::exchange(hook, nullptr)();
    }
    return ForwardingMeta::commit(std::move(transaction));
  }

  std::string before_erasing;
  std::function<void()> hook;
};

// Results whose value is the name of a chunk; nothing else keeps anything.
class ResultRoots : public ManyRoots {
 public:
  Status visit_result(std::string_view value, const content::ReferenceVisitor& visit) override {
    QANAT_ASSIGN_OR_RETURN(const Hash hash, Hash::from_bytes(value));
    return visit({{chunk::BlobKind::kChunk, hash}, content::NodeUse::kContent});
  }
};

class GcTest : public ::testing::Test {
 protected:
  void SetUp() override {
    session_ = *Session::start(meta_, clock_, "test", 400'000'000'000);
    content::ContentOptions options;
    options.now_ms = [this] { return clock_.wall_ms(); };
    options.pins = session_.get();
    options.background = false;
    options.write_threads = 0;
    contents_ = content::ContentStores::create(&meta_, &objects_, std::move(options));
    versions_ = std::make_unique<Versions>(
        meta_, clock_, [this](std::string_view project) -> Result<content::BlobReader*> {
          QANAT_ASSIGN_OR_RETURN(auto* content, contents_->project(project));
          return &content->blobs();
        });
    roots_ = std::make_unique<VersionRoots>(meta_, clock_, *versions_);
    ASSERT_TRUE(versions_->start().ok());
    ASSERT_TRUE(versions_->create_repo(kOrders, "").ok());
    ASSERT_TRUE(versions_->create_repo(kOther, "").ok());
  }

  content::ContentStore& content() { return **contents_->project(kProject); }
  std::string noise(size_t size) { return random_.bytes(size); }

  // Puts the file and deletes all others; gives the commit's id.
  std::string replace(const RepoName& repo, const std::string& ref, const std::string& path,
                      const std::string& bytes) {
    const auto writer = content().new_writer();
    const auto file = content::write_file(*writer, bytes);
    EXPECT_TRUE(file.ok());
    auto written = versions_->apply(
        repo, ref, *writer, [&](const content::TreeRoot& base) -> Result<content::TreeRoot> {
          content::EditBuffer edits(posix_file_system(), ::testing::TempDir());
          QANAT_RETURN_IF_ERROR(edits.add(content::TreeEdit::remove("")));
          QANAT_RETURN_IF_ERROR(edits.add(content::TreeEdit::put(path, *file)));
          return edits.apply(*writer, base);
        });
    EXPECT_TRUE(written.ok()) << written.status().to_string();
    return written.ok() ? written->commit.id : "";
  }

  std::unique_ptr<GcCollector> collector(content::RootSource& roots, bool dry_run) {
    content::GcContext context;
    context.meta = &meta_;
    context.objects = &objects_;
    context.content = &content();
    context.pins = session_.get();
    context.clock = &clock_;
    context.sources = {&roots};
    context.scratch = {&posix_file_system(), ::testing::TempDir(), 1 << 20};
    content::GcOptions options;
    options.dry_run = dry_run;
    options.settle_ms = 0;
    options.reader_grace_ms = 0;
    return GcCollector::create(std::move(context), options);
  }
  // Steps until it is done.
  content::GcReport report_of(GcCollector& collector) {
    for (int steps = 0; steps < 1000; ++steps) {
      const auto progress = collector.step();
      EXPECT_TRUE(progress.ok()) << progress.status().to_string();
      if (!progress.ok() || *progress == GcCollector::Progress::kDone) break;
    }
    return collector.report();
  }
  content::GcReport dry_run() { return report_of(*collector(*roots_, true)); }

  ManualClock clock_;
  qanat::testing::MemoryMeta meta_{clock_};
  qanat::testing::MemoryObjects objects_;
  SeededRandom random_{7};
  std::unique_ptr<Session> session_;
  std::unique_ptr<content::ContentStores> contents_;
  std::unique_ptr<Versions> versions_;
  std::unique_ptr<VersionRoots> roots_;
};

// Bytes that a holder keeps beyond those before it; -1: it is not told.
int64_t kept_by(const content::GcReport& report, const std::string& kind, const std::string& name) {
  for (const content::HolderUse& use : report.holders) {
    if (use.holder.kind == kind && use.holder.name.starts_with(name)) {
      return static_cast<int64_t>(use.bytes);
    }
  }
  return -1;
}
void expect_near(int64_t bytes, int64_t of) {
  EXPECT_GE(bytes, of);
  EXPECT_LT(bytes, of + 600) << "nodes are small";
}

TEST_F(GcTest, TheReportNamesWhatKeepsBytes) {
  for (int n = 0; n < 120; ++n) replace(kOrders, "master", "f", noise(300));
  const std::string before = replace(kOrders, "master", "f", noise(3'000));
  replace(kOrders, "master", "f", noise(4'000));
  ASSERT_TRUE(versions_->put_branch(kOrders, "same", {.head = "master", .provenance = {}}).ok());
  const auto open = versions_->start_commit(kOrders, {.branch = "next"});
  ASSERT_TRUE(open.ok());
  replace(kOrders, open->commit.id, "f", noise(5'000));
  replace(kOther, "master", "f", noise(6'000));
  ASSERT_TRUE(versions_->delete_repo(kOther, false).ok());
  const auto upload = content::begin_upload(meta_, kProject, "orders", "alice", clock_.wall_ms());
  ASSERT_TRUE(upload.ok());
  {
    const auto writer = content().new_writer();
    ASSERT_TRUE(writer->add(chunk::BlobKind::kChunk, noise(7'000)).ok() && writer->flush().ok());
    meta::Transaction transaction;
    writer->add_to(&transaction);
    const auto done = meta_.commit(std::move(transaction));
    ASSERT_TRUE(done.ok() && done->succeeded);
    writer->committed(done->revision);
  }

  const content::GcReport report = dry_run();
  expect_near(kept_by(report, "branch", "orders@master"), 4'000);
  EXPECT_EQ(kept_by(report, "branch", "orders@same"), -1);
  expect_near(kept_by(report, "open commit", "orders@" + open->commit.id), 5'000);
  expect_near(kept_by(report, "commit", "orders@" + before), 3'000);
  expect_near(kept_by(report, "trash", "repo other"), 6'000);
  EXPECT_EQ(kept_by(report, "upload", upload->id), 7'000);
  EXPECT_EQ(kept_by(report, "upload", upload->id + " of alice, for orders"), 7'000);
  EXPECT_GE(kept_by(report, "repo", "orders"), 20 * 300) << "commits that are not new";
  uint64_t sum = 0;
  for (const content::HolderUse& use : report.holders) {
    EXPECT_GT(use.blobs, 0u) << use.holder.name;
    sum += use.bytes;
  }
  EXPECT_EQ(sum, report.live_bytes + 7'000);
  EXPECT_EQ(report.dead_bytes, 0u);
  EXPECT_EQ(report.young_bytes, 7'000u);

  ASSERT_TRUE(content::end_upload(meta_, *upload).ok());
  const content::GcReport after = dry_run();
  EXPECT_EQ(kept_by(after, "upload", ""), -1);
  EXPECT_EQ(after.dead_bytes, 7'000u);
  EXPECT_EQ(after.live_bytes, report.live_bytes);
}

TEST_F(GcTest, ManyHoldersAreToldInSum) {
  constexpr size_t kHolders = 1'500;
  ManyRoots roots;
  const auto writer = content().new_writer();
  for (size_t n = 0; n < kHolders; ++n) {
    const auto ref = writer->add(chunk::BlobKind::kChunk, noise(40 + n));
    ASSERT_TRUE(ref.ok());
    roots.refs.push_back(*ref);
  }
  ASSERT_TRUE(writer->flush().ok());
  meta::Transaction transaction;
  writer->add_to(&transaction);
  const auto done = meta_.commit(std::move(transaction));
  ASSERT_TRUE(done.ok() && done->succeeded);
  writer->committed(done->revision);
  const content::GcReport report = report_of(*collector(roots, true));
  EXPECT_EQ(report.holders.size(), 1'001u);
  EXPECT_EQ(kept_by(report, "branch", "1499"), 1'539);
  EXPECT_EQ(kept_by(report, "branch", "499"), -1);
  EXPECT_GT(kept_by(report, "branch", "(500 smaller ones)"), 500 * 40);
  uint64_t sum = 0;
  for (const content::HolderUse& use : report.holders) sum += use.bytes;
  EXPECT_EQ(sum, report.live_bytes);
}

class GcWriterTest : public GcTest {
 protected:
  // True if the transaction happened. What it makes visible is that nothing but the chunk lives.
  bool commit(content::ContentWriter& writer, const chunk::BlobRef& chunk) {
    EXPECT_TRUE(writer.flush().ok());
    meta::Transaction transaction;
    writer.add_to(&transaction);
    const auto done = meta_.commit(std::move(transaction));
    EXPECT_TRUE(done.ok());
    if (!done->succeeded) return false;
    writer.committed(done->revision);
    living_.refs = {chunk};
    return true;
  }
  // Until it is done, or waits; steps on for a while then.
  GcCollector::Progress run(GcCollector& collector) {
    auto progress = GcCollector::Progress::kMore;
    for (int waited = 0; waited < 50 && progress != GcCollector::Progress::kDone;) {
      const auto step = collector.step();
      EXPECT_TRUE(step.ok()) << step.status().to_string();
      if (!step.ok()) break;
      progress = *step;
      if (progress != GcCollector::Progress::kWaiting) continue;
      ++waited;
      clock_.advance_ms(1000);
    }
    return progress;
  }
  std::unique_ptr<GcCollector> collector() { return GcTest::collector(living_, false); }
  chunk::PackId pack_of(const chunk::BlobRef& ref) {
    const auto found = content().blobs().locate_many(std::span(&ref, 1));
    EXPECT_TRUE(found.ok() && (*found)[0]);
    return found.ok() && (*found)[0] ? *(*found)[0]->pack : chunk::PackId();
  }
  bool there(const chunk::PackId& pack) {
    return objects_.size(content::pack_object_key(kProject, pack)).ok();
  }

  ManyRoots living_;
};

TEST_F(GcWriterTest, ASweepWaitsForWritersThatRelyOnWhatIsCondemned) {
  auto first = content().new_writer();
  const chunk::BlobRef ref = *first->add(chunk::BlobKind::kChunk, "deleted and put again");
  ASSERT_TRUE(commit(*first, ref));
  first.reset();
  report_of(*collector());  // moves the epoch, so that the pack is old
  const chunk::PackId old = pack_of(ref);

  auto again = content().new_writer();
  ASSERT_TRUE(again->add(chunk::BlobKind::kChunk, "deleted and put again").ok());
  EXPECT_EQ(again->stats().deduplicated, 1u);
  living_.refs.clear();
  const auto collection = collector();
  EXPECT_EQ(run(*collection), GcCollector::Progress::kWaiting);
  EXPECT_EQ(collection->phase(), "waiting for readers");
  EXPECT_TRUE(there(old));

  // So it can copy out of what is condemned.
  EXPECT_FALSE(commit(*again, ref));
  ASSERT_TRUE(again->recheck().ok());
  ASSERT_TRUE(commit(*again, ref));
  again.reset();
  EXPECT_EQ(run(*collection), GcCollector::Progress::kDone);
  EXPECT_FALSE(there(old));
  EXPECT_TRUE(there(pack_of(ref)));
  EXPECT_EQ(**content().blobs().read(ref), "deleted and put again");
}

// A pack that cannot be read whole is not rewritten, and does not keep what else is dead.
TEST_F(GcWriterTest, ADamagedPackStaysAndTheRestGoes) {
  auto half = content().new_writer();
  const chunk::BlobRef live = *half->add(chunk::BlobKind::kChunk, noise(2'000));
  ASSERT_TRUE(half->add(chunk::BlobKind::kChunk, noise(9'000)).ok());
  ASSERT_TRUE(commit(*half, live));
  auto sound = content().new_writer();
  const std::string bytes = noise(2'000);
  const chunk::BlobRef also_live = *sound->add(chunk::BlobKind::kChunk, bytes);
  ASSERT_TRUE(sound->add(chunk::BlobKind::kChunk, noise(9'000)).ok());
  ASSERT_TRUE(commit(*sound, also_live));
  auto dead = content().new_writer();
  const chunk::BlobRef gone = *dead->add(chunk::BlobKind::kChunk, noise(9'000));
  ASSERT_TRUE(commit(*dead, gone));
  half.reset();
  sound.reset();
  dead.reset();
  living_.refs = {live, also_live};
  const chunk::PackId damaged = pack_of(live);
  const chunk::PackId rewritten = pack_of(also_live);
  const chunk::PackId removed = pack_of(gone);
  const std::string key = content::pack_object_key(kProject, damaged);
  std::string pack = *objects_.read(key, 0, *objects_.size(key));
  for (size_t i = 8; i < 11'000; ++i) pack[i] = static_cast<char>(~pack[i]);
  ASSERT_TRUE(objects_.remove(key).ok());
  ASSERT_TRUE(objects_.write(key, pack).ok());

  const auto report = report_of(*collector());
  EXPECT_EQ(report.rewritten_packs, 1u);
  EXPECT_TRUE(there(damaged));
  EXPECT_EQ(pack_of(live), damaged);
  EXPECT_FALSE(there(rewritten));
  EXPECT_EQ(**content().blobs().read(also_live), bytes);
  EXPECT_FALSE(there(removed));
}

// Two writers store a chunk at once. The copy that is registered last hides the other in the index,
// is of the older epoch, and condemned alone, while a third writer counts on the hidden one.
TEST_F(GcWriterTest, AHiddenCopyIsFoundWhenTheOneBeforeItGoes) {
  auto slow = content().new_writer();
  const chunk::BlobRef ref = *slow->add(chunk::BlobKind::kChunk, "stored twice");
  ASSERT_TRUE(slow->flush().ok());
  report_of(*collector());
  auto fast = content().new_writer();
  ASSERT_TRUE(fast->add(chunk::BlobKind::kChunk, "stored twice").ok());
  ASSERT_TRUE(commit(*fast, ref));
  const chunk::PackId hidden = pack_of(ref);
  auto relies = content().new_writer();
  const auto known = relies->find_chunks(std::span(&ref.hash, 1));
  ASSERT_TRUE(known.ok() && (*known)[0] && (*known)[0]->pack == hidden);
  relies->rely_on(*(*known)[0]);
  fast.reset();
  living_.refs.clear();
  if (!commit(*slow, ref)) {
    ASSERT_TRUE(slow->recheck().ok());
    ASSERT_TRUE(commit(*slow, ref));
  }
  slow.reset();
  living_.refs.clear();
  const chunk::PackId hiding = pack_of(ref);
  ASSERT_LT(hiding.epoch, hidden.epoch);
  // Both outlive what an index does on the side.
  ASSERT_TRUE(content().blobs().index().compact(true).ok());

  const auto collection = collector();
  EXPECT_EQ(run(*collection), GcCollector::Progress::kWaiting);
  EXPECT_FALSE(commit(*relies, ref));
  ASSERT_TRUE(relies->recheck().ok());
  ASSERT_TRUE(commit(*relies, ref));
  EXPECT_EQ(relies->stats().packs, 0u) << "nothing has to be written again";
  relies.reset();
  EXPECT_EQ(run(*collection), GcCollector::Progress::kDone);
  EXPECT_FALSE(there(hiding));
  EXPECT_EQ(pack_of(ref), hidden);
  EXPECT_EQ(**content().blobs().read(ref), "stored twice");
}

TEST_F(GcTest, ALongStepLosesNoLock) {
  replace(kOrders, "master", "f", noise(3'000));
  {
    const auto kept = collector(*roots_, false);
    ASSERT_TRUE(kept->step().ok());
    for (int i = 0; i < 5; ++i) {  // as if one step took so long
      clock_.advance_ms(15'000);
      ASSERT_TRUE(kept->keep().ok());
    }
    EXPECT_TRUE(kept->step().ok());
    EXPECT_EQ(collector(*roots_, false)->step().status().code(), Code::kConflict);
    report_of(*kept);
  }
  const auto lost = collector(*roots_, false);
  ASSERT_TRUE(lost->step().ok());
  clock_.advance_ms(25'000);
  EXPECT_EQ(lost->step().status().code(), Code::kUnavailable);
}

TEST_F(GcTest, MarkingNeedsItsRevisionOnlyToBegin) {
  for (int n = 0; n < 20; ++n) replace(kOrders, "master", str_cat("d/f", n), noise(300));
  replace(kOther, "master", "f", noise(6'000));
  ASSERT_TRUE(versions_->delete_repo(kOther, false).ok());
  const RepoName gone{kProject, "gone"};
  ASSERT_TRUE(versions_->create_repo(gone, "").ok());
  replace(gone, "master", "f", noise(5'000));
  ASSERT_TRUE(versions_->delete_repo(gone, false, "", false).ok());
  ForgetfulRoots roots(*roots_);
  const auto collector = this->collector(roots, false);
  while (true) {
    ++roots.steps;
    const auto progress = collector->step();
    ASSERT_TRUE(progress.ok()) << progress.status().to_string();
    if (*progress == GcCollector::Progress::kDone) break;
  }
  EXPECT_EQ(collector->report().missing, 0u);
  EXPECT_EQ(collector->report().freed_objects, 1u);
  EXPECT_GT(kept_by(collector->report(), "trash", "repo other"), 6'000 - 1);
}

// A result outlives the job that has found its content again, in a pack that was garbage.
TEST_F(GcTest, AResultThatComesDuringACollectionKeepsItsContent) {
  const std::string bytes = noise(3'000);
  const auto add = [&](content::ContentWriter& writer) {
    const auto ref = writer.add(chunk::BlobKind::kChunk, bytes);
    EXPECT_TRUE(ref.ok() && writer.flush().ok());
    return *ref;
  };
  const auto commit = [&](content::ContentWriter& writer, meta::Transaction transaction) {
    writer.add_to(&transaction);
    const auto done = meta_.commit(std::move(transaction));
    EXPECT_TRUE(done.ok() && done->succeeded);
    writer.committed(done->revision);
    return done->revision;
  };
  ResultRoots roots;
  chunk::BlobRef ref;
  {
    const auto writer = content().new_writer();
    ref = add(*writer);
    commit(*writer, {});
  }
  auto collector = this->collector(roots, false);
  bool registered = false;
  while (true) {
    const auto progress = collector->step();
    ASSERT_TRUE(progress.ok()) << progress.status().to_string();
    if (*progress == GcCollector::Progress::kDone) break;
    if (registered || collector->phase() != "weighing") continue;
    registered = true;
    const auto writer = content().new_writer();
    EXPECT_EQ(add(*writer), ref);
    EXPECT_EQ(writer->stats().deduplicated, 1u);
    auto segment = content().results().write_segment({{"key", std::string(ref.hash.view())}});
    ASSERT_TRUE(segment.ok());
    meta::Transaction transaction;
    transaction.add(content().results().registration(*segment));
    const int64_t revision = commit(*writer, std::move(transaction));
    content().results().registered(*std::move(segment), revision);
  }
  EXPECT_TRUE(registered);
  EXPECT_EQ(collector->report().rescued_packs, 1u);
  EXPECT_EQ(collector->report().freed_objects, 0u);
  collector.reset();  // and its lock
  // By the next collection it is weak as any other.
  const auto report = report_of(*this->collector(roots, false));
  EXPECT_EQ(report.forgotten_results, 1u);
  EXPECT_EQ(report.freed_objects, 1u);
}

TEST_F(GcTest, ACommitWhoseRepoIsGoneStaysInTheTrash) {
  const std::string first = replace(kOrders, "master", "f", noise(300));
  const std::string last = replace(kOrders, "master", "f", noise(400));
  CommitSets sets(meta_, clock_, *versions_, nullptr);
  CommitSets::Request request;
  request.id = last;
  request.how = CommitSets::How::kDrop;
  ASSERT_TRUE(sets.remove(request).ok());
  ASSERT_TRUE(versions_->delete_repo(kOrders, false).ok());
  EXPECT_EQ(sets.undelete(kProject, last).status().code(), Code::kFailedPrecondition);
  report_of(*collector(*roots_, false));
  ASSERT_TRUE(versions_->undelete_repo(kOrders).ok());
  const auto back = sets.undelete(kProject, last);
  ASSERT_TRUE(back.ok()) << back.status().to_string();
  EXPECT_EQ(*back, 1);
  EXPECT_TRUE(versions_->resolve(kOrders, last).ok());
  EXPECT_EQ(versions_->list_trash(kProject)->size(), 0u);
  report_of(*collector(*roots_, false));
  // What cannot be removed leaves nothing in the trash.
  request.id = first;
  EXPECT_FALSE(sets.remove(request).ok());
  EXPECT_EQ(versions_->list_trash(kProject)->size(), 0u);
}

TEST_F(GcTest, ACommitBegunOnOneThatIsSquashedMeanwhileGetsItsParent) {
  const std::string first = replace(kOrders, "master", "f", noise(300));
  const std::string middle = replace(kOrders, "master", "f", noise(400));
  replace(kOrders, "master", "f", noise(500));
  HookedMeta hooked(meta_);
  Versions versions(hooked, clock_, [this](std::string_view) -> Result<content::BlobReader*> {
    return &content().blobs();
  });
  CommitSets sets(hooked, clock_, versions, nullptr);
  CommitSets::Request request;
  request.id = middle;
  std::string child;
  hooked.before_erasing = commit_key(kProject, "orders", middle);
  hooked.hook = [&] {
    const auto started = versions_->start_commit(kOrders, {.branch = "", .parent = middle});
    ASSERT_TRUE(started.ok()) << started.status().to_string();
    child = started->commit.id;
  };
  const auto removed = sets.remove(request);
  ASSERT_TRUE(removed.ok()) << removed.status().to_string();
  const auto found = versions_->resolve(kOrders, child);
  ASSERT_TRUE(found.ok()) << found.status().to_string();
  EXPECT_EQ(found->record.parent, first);
}

// More of them than a page of anything has.
TEST_F(GcTest, AllThatWasMadeFromACommitIsInTheWayOfItsRemovalOrGoesWithIt) {
  constexpr int kMany = 1100;
  // A pipeline's commit in a repo of its own, made from `input`.
  const auto make = [&](const std::string& pipeline, const std::string& id, int64_t wave,
                        const CommitInput& input) {
    CommitRecord record{.origin = CommitOrigin::kPipeline, .wave = wave, .finished_ms = 1};
    record.pipeline = pipeline;
    record.inputs = {input};
    meta::Transaction transaction;
    transaction.put(repo_key(kProject, pipeline), encode(RepoRecord{.pipeline = pipeline}));
    transaction.put(commit_key(kProject, pipeline, id), encode(record));
    ASSERT_TRUE(meta_.commit(std::move(transaction)).ok());
  };
  std::vector<std::string> members;
  for (int n = 0; n < kMany; ++n) members.push_back(str_cat("own", n));
  class Dag : public DagView {
   public:
    std::vector<std::string> members;
    Result<std::vector<std::string>> downstream(std::string_view, const std::vector<BranchName>&,
                                                int64_t) override {
      return members;
    }
  } dag;
  dag.members = members;
  versions_->set_dag(&dag);
  const std::string first = replace(kOrders, "master", "f", noise(300));
  const CommitInput input{.repo = "orders", .branch = "master", .commit = first, .wave = 1};
  for (const std::string& member : members) make(member, first, 1, input);
  for (int n = 0; n < kMany; ++n) {
    const std::string pipeline = str_cat("later", n);
    const auto wave = versions_->start_wave(kProject, [&](int64_t) -> Result<WaveDraft> {
      return WaveDraft{.members = {pipeline}, .with = {}};
    });
    ASSERT_TRUE(wave.ok());
    make(pipeline, wave->record.id, wave->number, input);
  }

  CommitSets sets(meta_, clock_, *versions_, nullptr);
  CommitSets::Request request;
  request.id = first;
  request.how = CommitSets::How::kDrop;
  const auto refused = sets.remove(request);
  ASSERT_EQ(refused.code(), Code::kFailedPrecondition);
  EXPECT_TRUE(refused.status().message().starts_with("commit later0@"))
      << refused.status().to_string();
  request.recursive = true;
  const auto removed = sets.remove(request);
  ASSERT_TRUE(removed.ok()) << removed.status().to_string();
  EXPECT_EQ(removed->size(), static_cast<size_t>(1 + 2 * kMany));
  EXPECT_TRUE(meta_.range(meta::KeyRange::prefix(commits_prefix(kProject)))->items.empty());
  versions_->set_dag(nullptr);
}

// Counts the commits' records that are read other than by their names.
class CommitReadsMeta : public qanat::testing::ForwardingMeta {
 public:
  using ForwardingMeta::ForwardingMeta;
  Result<meta::RangeResult> range(const meta::KeyRange& range,
                                  const meta::RangeOptions& options) const override {
    auto found = ForwardingMeta::range(range, options);
    if (found.ok() && range.begin.starts_with(commits_prefix(kProject)) &&
        range.end != meta::key_after(range.begin)) {
      scanned += found->items.size();
    }
    return found;
  }
  mutable size_t scanned = 0;
};

TEST_F(GcTest, ChildrenAreFoundWithoutReadingAllCommits) {
  std::vector<std::string> ids;
  for (int n = 0; n < 5; ++n) ids.push_back(replace(kOrders, "master", "f", noise(300)));
  const auto open = versions_->start_commit(kOrders, {.branch = "", .parent = ids[2]});
  ASSERT_TRUE(open.ok());
  CommitReadsMeta counted(meta_);
  Versions versions(counted, clock_, [this](std::string_view) -> Result<content::BlobReader*> {
    return &content().blobs();
  });
  CommitSets sets(counted, clock_, versions, nullptr);
  const auto take_out = [&](const std::string& id, CommitSets::How how) {
    CommitSets::Request request;
    request.id = id;
    request.how = how;
    return sets.remove(request).status();
  };
  const auto parents = [&] {
    std::map<std::string, std::string> by_child;
    const auto keys = meta_.range(meta::KeyRange::prefix(children_prefix(kProject)));
    for (const meta::KeyValue& item : keys->items) {
      by_child[std::string(last_part(item.key))] = part_from_end(item.key, 1);
    }
    return by_child;
  };
  using Parents = std::map<std::string, std::string>;
  const std::string other = open->commit.id;
  ASSERT_TRUE(take_out(ids[2], CommitSets::How::kSquash).ok());
  EXPECT_EQ(parents(),
            (Parents{{ids[1], ids[0]}, {ids[3], ids[1]}, {other, ids[1]}, {ids[4], ids[3]}}));
  ASSERT_TRUE(take_out(ids[0], CommitSets::How::kSquash).ok());
  EXPECT_EQ(parents(), (Parents{{ids[3], ids[1]}, {other, ids[1]}, {ids[4], ids[3]}}));
  EXPECT_EQ(take_out(ids[3], CommitSets::How::kDrop).code(), Code::kFailedPrecondition);
  ASSERT_TRUE(take_out(ids[4], CommitSets::How::kDrop).ok());
  ASSERT_TRUE(take_out(ids[3], CommitSets::How::kDrop).ok());
  ASSERT_TRUE(versions.discard_commit(kOrders, other).ok());
  EXPECT_EQ(parents(), Parents());
  ASSERT_TRUE(sets.undelete(kProject, ids[3]).ok());
  EXPECT_EQ(parents(), (Parents{{ids[3], ids[1]}}));
  EXPECT_EQ(counted.scanned, 0u);
  ASSERT_TRUE(versions.delete_repo(kOrders, false).ok());
  EXPECT_EQ(parents(), Parents());
  ASSERT_TRUE(versions.undelete_repo(kOrders).ok());
  EXPECT_EQ(parents(), (Parents{{ids[3], ids[1]}}));
}

TEST_F(GcTest, UploadsAreListedWithoutTheirPacks) {
  std::set<std::string> ids;
  for (int n = 0; n < 3; ++n) {
    const auto upload = content::begin_upload(meta_, kProject, "orders", "alice", 1);
    ASSERT_TRUE(upload.ok());
    ids.insert(upload->id);
    for (int pack = 0; pack < 5; ++pack) {
      chunk::PackId id;
      id.id[0] = static_cast<decltype(id.id)::value_type>(pack);
      ASSERT_TRUE(meta_.commit(meta::Transaction().add(upload->note_pack(id))).ok());
    }
  }
  // Another project's, and what is left of one that ended.
  ASSERT_TRUE(content::begin_upload(meta_, "default2", "orders", "alice", 1).ok());
  ASSERT_TRUE(
      meta_.commit(meta::Transaction().erase(content::upload_key(kProject, *ids.begin()))).ok());
  ids.erase(ids.begin());
  const auto uploads = content::list_uploads(meta_, kProject);
  ASSERT_TRUE(uploads.ok());
  std::set<std::string> found;
  for (const content::Upload& upload : *uploads) found.insert(upload.id);
  EXPECT_EQ(found, ids);
  EXPECT_EQ(*session_->lowest_upload(kProject), std::optional<uint64_t>(0));
}

}  // namespace
}  // namespace qanat::version
