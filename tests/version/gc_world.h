// A world for simulations of garbage collection: a few servers over one meta store and one object
// store in memory, all in one thread.
//
// Whatever a server does to a store may be interrupted by what another server does: the stores call
// back before each operation. A server can die at any operation (what it was about to commit
// happens or not), its session can be ended under it, its index can lag. Everything follows from
// one seed.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "qanat/base/file_system.h"
#include "qanat/base/random.h"
#include "qanat/content/content_store.h"
#include "qanat/content/edit_buffer.h"
#include "qanat/content/gc_collector.h"
#include "qanat/version/gc_roots.h"
#include "qanat/version/session.h"
#include "qanat/version/versions.h"
#include "support/memory_meta.h"
#include "support/memory_objects.h"

namespace qanat::version {

// Rules of the algorithm, broken on purpose.
enum class Mutation {
  kNone,
  kSkipRescue,        // step 9 sees no roots
  kIgnoreSafe,        // every pack may be condemned, and nobody is waited for
  kNoEpochCompare,    // writers do not compare the epoch
  kNoSessionCompare,  // writers do not compare their session
  kTrashIsNoRoot,     // what is in the trash is not marked
};

struct World;

// A server's way to the stores.
struct Line {
  World* world = nullptr;
  bool dead = false;
  int64_t dies_in = -1;  // operations
  // What every operation does first.
  Status before(bool* half);
};

class LineMeta : public meta::Store {
 public:
  LineMeta(meta::Store& store, Line& line, bool blind_to_sessions)
      : store_(store), line_(line), blind_to_sessions_(blind_to_sessions) {}
  Result<meta::RangeResult> range(const meta::KeyRange& range,
                                  const meta::RangeOptions& options) const override {
    QANAT_RETURN_IF_ERROR(line_.before(nullptr));
    auto found = store_.range(range, options);
    if (blind_to_sessions_ && found.ok() && range.begin.starts_with("/v1/session/") &&
        range.end == meta::key_after(range.begin)) {
      if (!found->items.empty()) {
        session_ = found->items;
      } else {
        found->items = session_;
      }
    }
    return found;
  }
  Result<meta::TransactionResult> commit(meta::Transaction transaction) override;
  Result<std::unique_ptr<meta::Watch>> watch(const meta::KeyRange& range, int64_t from,
                                             meta::WatchCallback callback) override {
    return store_.watch(range, from, std::move(callback));
  }
  Result<int64_t> grant_lease(int64_t ttl_ms) override {
    QANAT_RETURN_IF_ERROR(line_.before(nullptr));
    return store_.grant_lease(ttl_ms);
  }
  Status keep_alive(int64_t lease) override {
    QANAT_RETURN_IF_ERROR(line_.before(nullptr));
    return store_.keep_alive(lease);
  }
  Status revoke_lease(int64_t lease) override {
    if (line_.dead) return unavailable("dead");
    return store_.revoke_lease(lease);
  }
  Result<meta::LeaseInfo> lease_info(int64_t lease) const override {
    return store_.lease_info(lease);
  }
  int64_t current_revision() const override { return store_.current_revision(); }
  Status wait_revision(int64_t revision, std::chrono::milliseconds timeout) const override {
    return store_.wait_revision(revision, timeout);
  }

 private:
  meta::Store& store_;
  Line& line_;
  const bool blind_to_sessions_;  // a session that was once there is always there
  mutable std::vector<meta::KeyValue> session_;
};

class LineObjects : public object::ObjectStore {
 public:
  LineObjects(object::ObjectStore& store, Line& line) : store_(store), line_(line) {}
  using object::ObjectStore::create;
  Result<std::unique_ptr<object::ObjectWriter>> create(std::string_view key,
                                                       CreateOptions options) override {
    QANAT_RETURN_IF_ERROR(line_.before(nullptr));
    return store_.create(key, options);
  }
  Result<std::string> read(std::string_view key, int64_t offset, int64_t length) const override {
    QANAT_RETURN_IF_ERROR(line_.before(nullptr));
    return store_.read(key, offset, length);
  }
  Result<int64_t> size(std::string_view key) const override { return store_.size(key); }
  Status remove(std::string_view key) override {
    QANAT_RETURN_IF_ERROR(line_.before(nullptr));
    return store_.remove(key);
  }
  Status list(std::string_view prefix, const Visitor& each) const override {
    return store_.list(prefix, each);
  }
  std::string describe() const override { return "memory"; }

 private:
  object::ObjectStore& store_;
  Line& line_;
};

// The roots as a mutation shows them to one collector.
class SimRoots : public content::RootSource {
 public:
  SimRoots(content::RootSource& roots, Mutation mutation) : roots_(roots), mutation_(mutation) {}
  Status prepare(std::string_view project, bool now) override {
    return roots_.prepare(project, now);
  }
  Status visit_roots(const Request& request,
                     const std::function<Status(const content::Holder&, const content::Reference&)>&
                         visit) override {
    if (first_ == 0) first_ = request.revision;
    if (mutation_ == Mutation::kSkipRescue && request.revision != first_) return ok_status();
    if (mutation_ == Mutation::kTrashIsNoRoot && request.rank == content::RootRank::kTrash)
      return ok_status();
    return roots_.visit_roots(request, visit);
  }
  Status visit_references(content::NodeUse use, const content::Blob& node,
                          const content::ReferenceVisitor& visit) override {
    return roots_.visit_references(use, node, visit);
  }
  Status visit_result(std::string_view value, const content::ReferenceVisitor& visit) override {
    return roots_.visit_result(value, visit);
  }

 private:
  content::RootSource& roots_;
  const Mutation mutation_;
  int64_t first_ = 0;
};

class SimPins : public content::EpochPins {
 public:
  SimPins(content::EpochPins& pins, Mutation mutation) : pins_(pins), mutation_(mutation) {}
  Result<Pin> begin(std::string_view project) override { return pins_.begin(project); }
  void began(uint64_t pin, uint64_t epoch) override { pins_.began(pin, epoch); }
  void end(uint64_t pin) override { pins_.end(pin); }
  Status publish() override { return pins_.publish(); }
  Result<std::optional<uint64_t>> lowest_session(std::string_view project) override {
    if (mutation_ == Mutation::kIgnoreSafe) return std::optional<uint64_t>();
    return pins_.lowest_session(project);
  }
  Result<std::optional<uint64_t>> lowest_upload(std::string_view project) override {
    return pins_.lowest_upload(project);
  }

 private:
  content::EpochPins& pins_;
  const Mutation mutation_;
};

using FileMap = std::map<std::string, int>;  // path -> number of its content

struct Server {
  Server(World& world, std::string name);
  ~Server();

  World& world;
  Line line;
  LineMeta meta;
  LineObjects objects;
  std::unique_ptr<Session> session;
  std::unique_ptr<content::ContentStores> contents;
  std::unique_ptr<Versions> versions;
  std::unique_ptr<VersionRoots> roots;
  bool busy = false;  // something of it is on the stack

  // A put that has been begun.
  struct Put {
    std::unique_ptr<content::ContentWriter> writer;
    std::vector<content::TreeEdit> edits;
    FileMap files;
    std::string repo;
    std::string branch;
  };
  std::vector<Put> puts;
  std::unique_ptr<SimRoots> gc_roots;
  std::unique_ptr<SimPins> gc_pins;
  std::unique_ptr<content::GcCollector> collector;
};

struct World {
  World(uint64_t seed, Mutation mutation);
  ~World();

  // Does `steps` random things.
  void run(int steps);
  // Brings everything to rest, collects until nothing more can go. Then check().
  void finish();
  // "" or what is wrong.
  std::string check_readable();
  std::string check_clean();
  std::string check_children();

  void interleave();
  int pick(int bound) { return static_cast<int>(random.below(static_cast<uint64_t>(bound))); }
  bool chance(int percent) { return pick(100) < percent; }

  Mutation mutation;
  SeededRandom random;
  ManualClock clock;
  qanat::testing::MemoryMeta meta{clock};
  qanat::testing::MemoryObjects objects;
  std::vector<std::unique_ptr<Server>> servers;
  std::map<std::string, FileMap> expected;  // commit id -> files, of those that were acknowledged
  int depth = 0;
  bool quiet = false;  // nothing interleaves or dies
  std::string damage;  // what a collection has found
  uint64_t conflicts = 0;

 private:
  void step();
  void step_on(Server& server);
  void begin_put(Server& server);
  void end_put(Server& server);
  void copy(Server& server);
  void change(Server& server);
  void collect(Server& server);
  void replace(std::unique_ptr<Server>& server);
  std::unique_ptr<content::GcCollector> new_collector(Server& server, bool thorough);
};

// The bytes of content number `n`.
const std::string& content_bytes(int n);
inline constexpr int kContents = 24;

}  // namespace qanat::version
