// GcCollector: garbage collection of one project, online, as a resumable state machine.
//
// It is driven step by step, so that a server runs it beside everything else and a test interleaves
// it with anything. Dropped at any moment it leaves meta and objects such that a later one goes on.
//
// ## The algorithm
// The words: a *root* is what a record in meta refers to (root_source.h). A *writer* is a
// ContentWriter; it begins at an epoch, and its transaction T makes a root visible. A blob is
// *live at a revision* if a root of that revision reaches it.
//
//  1. Lock:     the leased key `lock`. Every transaction of the collector compares it.
//  2. Open:     sources remove what is kept only until a time that is over (with `now`, uploads
//               that nobody uses end); epoch := epoch + 1.
//  3. Settle:   wait, not for ever, until all sessions say the new epoch. `safe` := the lowest
//  epoch
//               that a session or an upload says.
//  4. Mark:     S := meta's revision now; walk all roots of S through an index at least as new as
//  S.
//  5. Weigh:    one pass over the index beside the marks: live and total bytes of each pack.
//  6. Forget:   entries of the index of results that refer to something unmarked are hidden.
//  7. Rewrite:  what lives in half-dead and in small packs is copied into fresh packs, which the
//               index then points to.
//  8. Condemn:  packs of epochs below `safe` in which nothing is marked, or all that is was copied,
//               get a key `condemned/...`, and collection := "condemned" with the first of them; at
//               last, in one transaction, epoch := epoch + 1. Call its revision C.
//  9. Rescue:   walk the roots of S' = C, less what is marked, and what the entries of results
//               that are left refer to; packs of what is newly marked lose their condemned key.
//               Then collection := "rescued".
// 10. Await:    until the grace of readers is over, and all sessions say at least the epoch of C.
// 11. Sweep:    entries that point to condemned packs leave the index, hidden ones too; then the
//               objects are deleted; then the condemned keys.
//
// ## Why no live blob is lost
// What writers do (content_writer.h): read the epoch and then the condemned packs; for each blob
// either write it into a pack named after the epoch, or rely on a pack that the index names and
// that is not condemned; T compares the session's creation revision and the epoch's revision. If
// the epoch moved, it reads both anew and, for each pack it relies on that is condemned by now,
// relies on another copy or writes the blob from the condemned pack into one of its own.
//
// The index keeps every copy of a blob that was ever registered: a younger one hides it, no more
// (SegmentIndexOptions::keep_copies). Only step 11 takes entries out, those of the packs it
// removes. (Of more than 4,096 copies merges keep the youngest. Whoever counts on one found it as
// the first; so many of writers that began long before would have to come in front of it, and be
// condemned, while he writes.)
//
// Claim: every blob that is live, or that a living writer has added, has a copy that stays, and
// that the index finds as soon as nothing hides it. Let D be packs that are swept, C their
// condemnation, and b a blob.
//
//  (a) b reached by a root visible at S: it was marked, and counted as alive in a pack; in one that
//      no collection before had condemned, if it has a copy there. That pack is not in D, unless
//      step 7 copied b before C, to a pack that is not.
//  (b) b reached by a root that became visible by a T with S < T < C and still is at C: step 9
//      walks it and rescues the packs of all its copies, unless there is one elsewhere.
//  (c) ... by a T > C. T's writer compared an epoch read after C, so it knew D as condemned (a
//      condemned key is put before C and removed only by a rescue or by the sweep of its pack, of
//      which more in (e)). What it had relied on in D it replaced. So for each blob that it added
//      it has written a copy, of which more in (e), or relies on one that is not in D; whether the
//      index names that one, or hides it under one in D, is the same. What T refers to without
//      having added it hangs in a tree of which T compares that its owner is unchanged (the
//      branch's head, the open commit), and so in a root that was visible before T: by induction
//      (a), (b) or (c); or it called rely_on_epoch(), and then T fails if anything was condemned
//      since, or had been and was not "rescued" yet (a root that it read might have gone before the
//      walk).
//  (d) ... by a root that comes back: undelete moves it out of the trash in one transaction that
//      compares the trash's record, so it was a root all the time; records whose time is over are
//      removed in step 2, before S.
//  (e) b added by a writer W that still lives, T yet to come. If W wrote b, its pack carries an
//      epoch not below the one W began in, hence not below what its session said at step 3: not
//      below `safe`, not in D. (Its session said no less later: records only rise, session.h. A
//      session that appears later says at least the epoch of step 2.) `safe` is read before S, and
//      S before the index: so a pack below `safe` whose writer ended well has its root visible at S
//      and its entries in the index that is weighed. If W relied on P in D, W began before C. Its
//      session says an epoch below C's until W ends, so step 11 waits; W's T finds the epoch moved.
//      So W can neither miss that P was condemned, nor find P gone when it copies out of it.
//      A W whose session was lost is not waited for, and its T fails for the session's key.
//  (f) The merge of step 11 reaches the bottom, and takes out the entries of D, hidden or not, and
//      no others. So what comes to light is a copy that stays, and no entry of D is left to.
//  (g) A writer whose server's index lags: EpochReader refreshes the indexes whenever it reads an
//      epoch it did not know. So whoever does not see a pack among the condemned because it was
//      swept, sees an index without it.
//  (h) b referred to by a result: not live for that. But whoever finds the result relies on b. A
//      result that step 6 has looked at and left refers to what is marked; one that was registered
//      later is still there at S' (its job, which kept b until then, may not be), and step 9 walks
//      it. One that is registered after S' comes from a job that is visible at S', or wrote after
//      C.
//
// ## Crashes, and collectors that come too late
// The epoch's moves and condemned keys alone change nothing but what new writers rely on. A
// collector that finds condemned packs and not "rescued" marks anew: its S is after their C, so its
// own step 8 takes the keys off those in which something is marked; (b) and (c) hold with the new
// S. It never sweeps before its own step 9. (Hence "condemned" with the first
// key: "rescued" says it of every key there is.) With "rescued" it may go on at step 10: what the
// packs held is dead for good, or has a copy elsewhere, and is counted as alive there alone. So is
// what a collector sweeps that has lost its lock meanwhile: ids of packs are never used again, and
// the sweep removes nothing but what was rescued from under the lock.
//
// ## Nothing leaks for ever
// Hidden copies count as dead in their packs. Packs that no index entry names (their writer died,
// or a deletion came undone by a power cut) are found by listing the store's `packs/`; if their
// epoch is below `safe` they are condemned like others. A stale list only delays that. Segments of
// the indexes that nothing names are fenced against a late registration, and removed after a grace.
//
// ## What it costs
// Nothing of it holds a lock that writers or readers take. A writer meets it as a moved epoch: two
// reads, twice a collection. Memory: the scratch's budget, and 100 bytes a pack.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "qanat/base/clock.h"
#include "qanat/content/content_store.h"
#include "qanat/content/gc_mark.h"
#include "qanat/content/gc_records.h"

namespace qanat::content {

struct GcOptions {
  bool dry_run = false;  // marks and weighs, changes nothing
  bool now = false;      // the trash, readers, and uploads that nobody uses get no grace
  // Uploads that no request has used for so long end with `now`.
  int64_t upload_idle_ms = 2 * 60 * 1000;
  // For readers, and URLs that were given out, of places that have changed.
  int64_t reader_grace_ms = 10 * 60 * 1000;
  // How long step 3 waits for writers that began before. Packs that are younger stay for the next
  // time.
  int64_t settle_ms = 30'000;
  int64_t lock_ttl_ms = 30'000;
  double min_live = 0.5;             // packs with a smaller part alive are rewritten
  uint64_t small_pack = 4ull << 20;  // packs with less alive are gathered
  size_t few_small_packs = 32;       // when there are so many
  size_t nodes_per_step = 4096;
  size_t entries_per_step = 50'000;
};

// All borrowed; they outlive the collector.
struct GcContext {
  meta::Store* meta = nullptr;
  object::ObjectStore* objects = nullptr;
  ContentStore* content = nullptr;
  EpochPins* pins = nullptr;
  Clock* clock = nullptr;
  std::vector<RootSource*> sources;
  GcScratch scratch;
};

struct GcReport {
  uint64_t packs = 0;  // that the index names
  uint64_t blobs = 0;
  uint64_t bytes = 0;  // as stored, and so below
  uint64_t live_bytes = 0;
  uint64_t young_bytes = 0;        // dead, but of packs too young to tell
  uint64_t missing = 0;            // live blobs that are in no pack: damage, found in passing
  std::vector<HolderUse> holders;  // those that keep something, in the order they are accounted
  uint64_t dead_packs = 0;         // condemned, or (dry run) would be
  uint64_t dead_bytes = 0;
  uint64_t rewritten_packs = 0;
  uint64_t rewritten_bytes = 0;  // copied out of them
  uint64_t rescued_packs = 0;
  uint64_t forgotten_results = 0;
  uint64_t ended_uploads = 0;
  uint64_t freed_objects = 0;
  uint64_t freed_bytes = 0;
  uint64_t waiting_packs = 0;  // condemned, not swept yet
};

class GcCollector {
 public:
  static std::unique_ptr<GcCollector> create(GcContext context, GcOptions options);
  virtual ~GcCollector() = default;  // gives the lock back

  enum class Progress {
    kMore,     // call step() again
    kWaiting,  // the same, but it is waiting: for writers, or for a grace to end
    kDone,
  };
  // A bounded piece of work. After an error it is of no more use; a new one goes on. kConflict:
  // another collection of the project runs. kUnavailable: the lock was lost. kDataLoss: something
  // live is damaged; nothing was condemned. kFailedPrecondition: there are packs, and the metadata
  // has never known any, so it may not be theirs; nothing was condemned.
  virtual Result<Progress> step() = 0;

  // Keeps the lock while a step takes long, as the sweep of a large index does: to be called every
  // few seconds, by any thread, until this is destroyed. Errors: the next step tells.
  virtual Status keep() = 0;

  // What it does now, for people: "marking", "waiting for readers", ...
  virtual std::string_view phase() const = 0;
  virtual const GcReport& report() const = 0;
};

}  // namespace qanat::content
