#include "version/gc_world.h"

#include <gtest/gtest.h>

#include "qanat/base/string.h"
#include "qanat/content/edit_buffer.h"
#include "qanat/content/file_reader.h"
#include "qanat/content/file_writer.h"
#include "qanat/content/index_compaction.h"
#include "qanat/version/keys.h"

namespace qanat::version {
namespace {

const std::string kProject = "default";
const std::vector<std::string> kRepos = {"a", "b"};
const std::vector<std::string> kBranches = {"master", "x"};

std::string scratch_directory() { return ::testing::TempDir(); }

}  // namespace

const std::string& content_bytes(int n) {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> made;
    SeededRandom random(7);
    for (int i = 0; i < kContents; ++i) {
      // Some of one chunk, a few of several.
      made.push_back(random.bytes(i % 12 == 11 ? 230'000 + static_cast<size_t>(i) * 1000
                                               : 40 + static_cast<size_t>(i) * 37));
    }
    return made;
  }();
  return all[static_cast<size_t>(n)];
}

// --- Lines ---

Status Line::before(bool* half) {
  if (dead) return unavailable("the server is dead");
  if (!world->quiet && dies_in >= 0 && dies_in-- == 0) {
    dead = true;
    if (half != nullptr) *half = world->chance(50);
    return unavailable("the server died");
  }
  world->interleave();
  return dead ? unavailable("the server is dead") : ok_status();
}

Result<meta::TransactionResult> LineMeta::commit(meta::Transaction transaction) {
  const Mutation mutation = line_.world->mutation;
  const bool collects =
      std::any_of(transaction.compares.begin(), transaction.compares.end(),
                  [](const meta::Compare& compare) { return compare.key.ends_with("/lock"); });
  std::erase_if(transaction.compares, [&](const meta::Compare& compare) {
    return (mutation == Mutation::kNoEpochCompare && !collects &&
            compare.key.ends_with("/epoch")) ||
           (mutation == Mutation::kNoSessionCompare && compare.key.starts_with("/v1/session/") &&
            compare.target == meta::Compare::Target::kCreateRevision &&
            transaction.then.size() > 1);
  });
  bool half = false;
  const Status status = line_.before(&half);
  if (half) (void)store_.commit(std::move(transaction));
  QANAT_RETURN_IF_ERROR(status);
  return store_.commit(std::move(transaction));
}

// --- Servers ---

Server::Server(World& w, std::string name)
    : world(w),
      line{&w},
      meta(w.meta, line, w.mutation == Mutation::kNoSessionCompare),
      objects(w.objects, line) {
  busy = true;
  auto started = Session::start(meta, w.clock, std::move(name), 400'000'000'000);
  EXPECT_TRUE(started.ok()) << started.status().to_string();
  session = *std::move(started);
  content::ContentOptions options;
  options.now_ms = [this] { return world.clock.wall_ms(); };
  options.pins = session.get();
  options.background = false;
  options.write_threads = 0;  // all in this thread
  options.index_cache_bytes = 4 << 20;
  options.blob_cache_bytes = 1 << 20;
  contents = content::ContentStores::create(&meta, &objects, std::move(options));
  versions = std::make_unique<Versions>(
      meta, w.clock, [this](std::string_view project) -> Result<content::BlobReader*> {
        QANAT_ASSIGN_OR_RETURN(auto* content, contents->project(project));
        return &content->blobs();
      });
  roots = std::make_unique<VersionRoots>(meta, w.clock, *versions);
  EXPECT_TRUE(versions->start().ok());
  busy = false;
}

Server::~Server() {
  busy = true;
  const bool quiet = std::exchange(world.quiet, true);
  collector.reset();
  puts.clear();
  world.quiet = quiet;
}

World::World(uint64_t seed, Mutation m) : mutation(m), random(seed) {
  quiet = true;
  for (int i = 0; i < 3; ++i) servers.push_back(std::make_unique<Server>(*this, str_cat(i)));
  for (const std::string& repo : kRepos) {
    EXPECT_TRUE(servers[0]->versions->create_repo({kProject, repo}, "").ok());
  }
  meta.hold_watches = chance(50);
  quiet = false;
}

World::~World() {
  quiet = true;
  servers.clear();
}

void World::run(int steps) {
  for (int i = 0; i < steps; ++i) step();
}

void World::interleave() {
  if (quiet || depth == 0 || depth > 2 || !chance(depth == 1 ? 25 : 10)) return;
  step();
}

void World::step() {
  if (meta.hold_watches && chance(20)) meta.deliver();
  const int what = pick(100);
  if (what < 4) {
    clock.advance_ms(chance(50) ? pick(20'000) : pick(4'000'000));
    meta.tick();
    return;
  }
  std::vector<Server*> idle;
  for (const auto& server : servers) {
    if (!server->busy) idle.push_back(server.get());
  }
  if (idle.empty()) return;
  Server* server = idle[static_cast<size_t>(pick(static_cast<int>(idle.size())))];
  if (server->line.dead) {
    // Its session ends some time; then there is a new server in its place.
    for (auto& slot : servers) {
      if (slot.get() == server && chance(50)) replace(slot);
    }
    return;
  }
  if (what < 7) {
    server->line.dies_in = pick(12);
    return;
  }
  if (what < 9) {
    // Taken for dead although it lives: what it began before must not become visible.
    meta.end_lease_of(server->session->mark().key);
    return;
  }
  server->busy = true;
  ++depth;
  step_on(*server);
  --depth;
  server->busy = false;
}

void World::replace(std::unique_ptr<Server>& server) {
  const bool was = std::exchange(quiet, true);
  const std::string key = server->session->mark().key;
  server.reset();
  if (chance(70)) meta.end_lease_of(key);
  server = std::make_unique<Server>(*this, "again");
  quiet = was;
}

void World::step_on(Server& server) {
  const int what = pick(100);
  if (what < 24) {
    begin_put(server);
  } else if (what < 44) {
    end_put(server);
  } else if (what < 48) {
    copy(server);
  } else if (what < 60) {
    change(server);
  } else if (what < 63) {
    (void)server.session->publish();
  } else if (what < 66) {
    (void)server.contents->maintain();
  } else {
    for (int i = pick(12); i >= 0 && !server.line.dead; --i) collect(server);
  }
}

void World::begin_put(Server& server) {
  auto content = server.contents->project(kProject);
  if (!content.ok() || server.puts.size() > 3) return;
  Server::Put put;
  put.writer = (*content)->new_writer();
  put.repo = kRepos[static_cast<size_t>(pick(2))];
  put.branch = kBranches[static_cast<size_t>(pick(2))];
  for (int i = pick(3); i >= 0; --i) {
    const int n = pick(kContents);
    const std::string path = str_cat("d", pick(3), "/f", pick(4));
    auto file = content::write_file(*put.writer, content_bytes(n));
    if (!file.ok()) return;
    if (put.files.contains(path)) continue;
    put.files[path] = n;
    put.edits.push_back(content::TreeEdit::put(path, *file));
  }
  server.puts.push_back(std::move(put));
}

void World::end_put(Server& server) {
  if (server.puts.empty()) return;
  const size_t which = static_cast<size_t>(pick(static_cast<int>(server.puts.size())));
  Server::Put put = std::move(server.puts[which]);
  server.puts.erase(server.puts.begin() + static_cast<std::ptrdiff_t>(which));
  if (chance(10)) return;  // given up
  auto written =
      server.versions->apply({kProject, put.repo}, put.branch, *put.writer,
                             [&](const content::TreeRoot& base) -> Result<content::TreeRoot> {
                               content::EditBuffer buffer(posix_file_system(), scratch_directory());
                               for (const auto& edit : put.edits)
                                 QANAT_RETURN_IF_ERROR(buffer.add(edit));
                               return buffer.apply(*put.writer, base);
                             });
  if (!written.ok()) {
    if (written.code() == Code::kConflict) ++conflicts;
    return;
  }
  // Puts into an open commit add up, those too whose outcome is not known: not followed here.
  if (!written->commit.record.finished()) return;
  FileMap files;
  if (!written->commit.record.parent.empty()) {
    const auto base = expected.find(written->commit.record.parent);
    if (base == expected.end()) return;  // its outcome was never told
    files = base->second;
  }
  for (const auto& [path, n] : put.files) files[path] = n;
  expected[written->commit.id] = std::move(files);
}

// Copies a directory of one repo into the other: nodes that the writer never sees.
void World::copy(Server& server) {
  auto content = server.contents->project(kProject);
  if (!content.ok()) return;
  const int from = pick(2);
  const auto writer = (*content)->new_writer();
  if (!writer->rely_on_epoch().ok()) return;
  const auto source = server.versions->resolve({kProject, kRepos[static_cast<size_t>(from)]},
                                               kBranches[static_cast<size_t>(pick(2))]);
  if (!source.ok()) return;
  const auto known = expected.find(source->id);
  if (known == expected.end()) return;
  const std::string directory = str_cat("d", pick(3));
  const auto entry = content::Tree((*content)->blobs(), source->record.root).find(directory);
  if (!entry.ok() || !*entry || !(*entry)->is_directory) return;
  const FileMap from_files = known->second;
  // Time passes before it is committed: now and then so much that the source can be deleted and
  // collected.
  if (chance(80)) {
    for (int i = pick(chance(25) ? 60 : 6); i > 0; --i) interleave();
  }
  auto written = server.versions->apply(
      {kProject, kRepos[static_cast<size_t>(1 - from)]}, "master", *writer,
      [&](const content::TreeRoot& base) -> Result<content::TreeRoot> {
        content::EditBuffer buffer(posix_file_system(), scratch_directory());
        QANAT_RETURN_IF_ERROR(buffer.add(content::TreeEdit::remove("copy")));
        QANAT_RETURN_IF_ERROR(
            buffer.add(content::TreeEdit::put_directory("copy", (*entry)->directory)));
        return buffer.apply(*writer, base);
      });
  if (!written.ok()) return;
  // Puts into an open commit add up, those too whose outcome is not known: not followed here.
  if (!written->commit.record.finished()) return;
  FileMap files;
  if (!written->commit.record.parent.empty()) {
    const auto base = expected.find(written->commit.record.parent);
    if (base == expected.end()) return;
    files = base->second;
  }
  std::erase_if(files, [](const auto& item) { return item.first.starts_with("copy/"); });
  for (const auto& [path, n] : from_files) {
    if (path.starts_with(directory + "/")) files["copy/" + path.substr(directory.size() + 1)] = n;
  }
  expected[written->commit.id] = std::move(files);
}

void World::change(Server& server) {
  const RepoName repo{kProject, kRepos[static_cast<size_t>(pick(2))]};
  const std::string branch = kBranches[static_cast<size_t>(pick(2))];
  Versions& versions = *server.versions;
  switch (pick(7)) {
    case 0:
    case 1: {
      (void)versions.delete_repo(repo, true, "", chance(70));
      if (chance(70)) (void)versions.create_repo(repo, "");
      break;
    }
    case 2:
      if (chance(50)) (void)versions.delete_repo(repo, true, "", false);
      (void)versions.undelete_repo(repo);
      (void)versions.create_repo(repo, "");
      break;
    case 3:
      (void)versions.delete_branch(repo, branch, true, "", chance(70));
      break;
    case 4:
      (void)versions.undelete_branch(repo, branch);
      break;
    case 5: {  // the head goes back
      Versions::BranchUpdate update;
      update.head = branch + "^";
      (void)versions.put_branch(repo, branch, update);
      break;
    }
    default: {
      auto started = versions.start_commit(repo, {.branch = branch});
      if (started.ok() && chance(50)) (void)versions.finish_commit(repo, started->commit.id);
      if (started.ok() && chance(30)) (void)versions.discard_commit(repo, started->commit.id);
    }
  }
}

std::unique_ptr<content::GcCollector> World::new_collector(Server& server, bool thorough) {
  auto content = server.contents->project(kProject);
  if (!content.ok()) return nullptr;
  server.gc_roots = std::make_unique<SimRoots>(*server.roots, mutation);
  server.gc_pins = std::make_unique<SimPins>(*server.session, mutation);
  content::GcContext context;
  context.meta = &server.meta;
  context.objects = &server.objects;
  context.content = *content;
  context.pins = server.gc_pins.get();
  context.clock = &clock;
  context.sources = {server.gc_roots.get()};
  context.scratch = {&posix_file_system(), scratch_directory(), 64 << 10};
  content::GcOptions options;
  options.nodes_per_step = static_cast<size_t>(1 + pick(20));
  options.entries_per_step = static_cast<size_t>(1 + pick(60));
  options.now = !thorough && chance(40);
  options.reader_grace_ms = chance(50) ? 0 : 60'000;
  options.settle_ms = chance(50) ? 0 : 10'000;
  options.min_live = thorough || chance(50) ? 1.0 : 0.5;
  options.few_small_packs = static_cast<size_t>(2 + pick(20));
  return content::GcCollector::create(std::move(context), options);
}

void World::collect(Server& server) {
  if (server.collector == nullptr) server.collector = new_collector(server, false);
  if (server.collector == nullptr) return;
  const auto progress = server.collector->step();
  if (progress.ok() && *progress == content::GcCollector::Progress::kWaiting) {
    if (chance(5)) server.collector.reset();  // goes on another time
    return;
  }
  if (progress.ok() && *progress == content::GcCollector::Progress::kMore) return;
  if (progress.code() == Code::kDataLoss) {
    damage = progress.status().to_string();
  }
  server.collector.reset();
}

void World::finish() {
  quiet = true;
  meta.hold_watches = false;
  meta.deliver();
  servers.clear();
  const auto sessions = meta.range(meta::KeyRange::prefix(session_key("")));
  for (const meta::KeyValue& item : sessions->items) meta.end_lease_of(item.key);
  // Locks of collectors that died.
  clock.advance_ms(3'600'000);
  meta.tick();
  servers.push_back(std::make_unique<Server>(*this, "last"));
}

std::string World::check_readable() {
  const bool was = std::exchange(quiet, true);
  std::string wrong = damage;
  {
    Server reader(*this, "reader");
    auto content = reader.contents->project(kProject);
    if (!content.ok()) return content.status().to_string();
    auto check = [&](const meta::KeyValue& item) -> Status {
      if (!wrong.empty()) return ok_status();
      QANAT_ASSIGN_OR_RETURN(const auto commit, decode<CommitRecord>(item.key, item.value));
      FileMap files;
      content::Tree tree((*content)->blobs(), commit.root);
      auto walked = tree.walk(
          "", [&](std::string_view path, const content::TreeEntry& entry) -> Result<bool> {
            content::FileReader file((*content)->blobs(), entry.file);
            QANAT_ASSIGN_OR_RETURN(const std::string bytes, file.read_all(1 << 20));
            for (int n = 0; n < kContents; ++n) {
              if (bytes == content_bytes(n)) files[std::string(path)] = n;
            }
            return true;
          });
      if (!walked.ok()) {
        wrong = str_cat(item.key, ": ", walked.status().to_string());
        return ok_status();
      }
      const auto known = expected.find(std::string(last_part(item.key)));
      if (known != expected.end() && known->second != files)
        wrong = str_cat(item.key, ": other files");
      return ok_status();
    };
    (void)visit_range(meta, commits_prefix(kProject), 0, check);
    if (wrong.empty()) wrong = check_children();
    const auto trash = reader.versions->list_trash(kProject);
    for (const TrashInfo& info : *trash) {
      (void)visit_range(meta, trash_item_key(kProject, info.id, "/v1/commit/"), 0, check);
    }
  }
  quiet = was;
  return wrong;
}

// That each commit is found below its parent, and nothing else is.
std::string World::check_children() {
  std::set<std::string> by_records;
  std::set<std::string> by_index;
  const Status read =
      visit_range(meta, commits_prefix(kProject), 0, [&](const meta::KeyValue& item) -> Status {
        QANAT_ASSIGN_OR_RETURN(const auto record, decode<CommitRecord>(item.key, item.value));
        if (record.parent.empty()) return ok_status();
        by_records.insert(
            child_key(kProject, part_from_end(item.key, 1), record.parent, last_part(item.key)));
        return ok_status();
      });
  if (!read.ok()) return read.to_string();
  (void)visit_range(meta, children_prefix(kProject), 0, [&](const meta::KeyValue& item) {
    by_index.insert(item.key);
    return ok_status();
  });
  return by_records == by_index ? "" : "the children of commits are not those of their records";
}

std::string World::check_clean() {
  // To rest: what was deleted is past its grace, and all packs are older than every writer.
  Server& server = *servers[0];
  if (content::is_virgin_index(meta, kProject).value_or(false)) {
    // If all writes died, what they left is collected once one has ended well.
    const auto writer = (*server.contents->project(kProject))->new_writer();
    if (!writer->add(chunk::BlobKind::kChunk, "something").ok() || !writer->flush().ok()) {
      return "something cannot be written";
    }
    meta::Transaction transaction;
    writer->add_to(&transaction);
    const auto done = meta.commit(std::move(transaction));
    if (!done.ok() || !done->succeeded) return "something cannot be registered";
    writer->committed(done->revision);
  }
  for (int round = 0; round < 4; ++round) {
    clock.advance_ms(Versions::kDefaultTrashGraceMs + 1000);
    meta.tick();
    server.collector = new_collector(server, true);
    for (int steps = 0;; ++steps) {
      const auto progress = server.collector->step();
      if (!progress.ok()) return progress.status().to_string();
      if (*progress == content::GcCollector::Progress::kDone) break;
      if (*progress == content::GcCollector::Progress::kWaiting) clock.advance_ms(5'000);
      if (steps > 100'000) return "the collection does not end";
    }
    server.collector.reset();
  }
  // What is needed, by a walk of its own.
  auto content = server.contents->project(kProject);
  std::set<chunk::BlobRef> needed;
  std::vector<chunk::BlobRef> waiting;
  content::RootSource::Request request;
  request.project = kProject;
  auto add = [&](const content::Reference& reference) -> Status {
    if (needed.insert(reference.ref).second) waiting.push_back(reference.ref);
    return ok_status();
  };
  (void)server.roots->visit_roots(
      request,
      [&](const content::Holder&, const content::Reference& reference) { return add(reference); });
  while (!waiting.empty()) {
    const chunk::BlobRef ref = waiting.back();
    waiting.pop_back();
    if (ref.kind == chunk::BlobKind::kChunk) continue;
    const auto node = (*content)->blobs().read(ref);
    if (!node.ok()) return node.status().to_string();
    (void)content::visit_node_references(*node, content::NodeUse::kContent, add);
  }
  auto scanner = (*content)->blobs().index().scan("");
  std::set<std::string> packs;
  while (true) {
    const auto entry = (*scanner)->next();
    if (!entry.ok()) return entry.status().to_string();
    if (!*entry) break;
    const auto ref = chunk::parse_blob_key((*entry)->key);
    const auto location = chunk::parse_location((*entry)->value);
    if (needed.erase(*ref) == 0) return str_cat("dead but kept: ", ref->to_string());
    packs.insert(content::pack_object_key(kProject, *location->pack));
  }
  if (!needed.empty()) return str_cat("needed but lost: ", needed.begin()->to_string());
  std::string wrong;
  (void)objects.list("packs/", [&](const object::ObjectInfo& info) -> Status {
    if (packs.erase(info.key) == 0) wrong = str_cat("a pack that nothing needs: ", info.key);
    return ok_status();
  });
  if (!packs.empty()) return str_cat("a pack is gone: ", *packs.begin());
  const auto left = meta.range(meta::KeyRange::prefix("/v1/gc/default/condemned/"));
  if (!left->items.empty()) return "condemned keys are left";
  const auto trash = meta.range(meta::KeyRange::prefix("/v1/trash"));
  if (!trash->items.empty()) return str_cat("the trash is not empty: ", trash->items[0].key);
  (void)objects.list("segments/", [&](const object::ObjectInfo& info) -> Status {
    const auto manifest = meta.range(meta::KeyRange::prefix("/v1/index/"));
    for (const meta::KeyValue& item : manifest->items) {
      if (item.value.find(info.key) != std::string::npos) return ok_status();
    }
    wrong = str_cat("a segment that nothing names: ", info.key);
    return ok_status();
  });
  return wrong;
}

}  // namespace qanat::version
