// Bodies about the trash, garbage collection, and maintenance.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qanat/api/describe.h"
#include "qanat/api/list.h"
#include "qanat/api/time.h"

namespace qanat::api {

struct TrashInfo {
  std::string kind;
  std::string name;
  Timestamp deleted;
  Timestamp expires;
};
template <class V>
void describe(V& v, TrashInfo& t) {
  v.type("TrashInfo", "Something deleted that can still be brought back.");
  v.required("kind", t.kind, "repo or branch.");
  v.required("name", t.name, "REPO or REPO@BRANCH.");
  v.required("deleted", t.deleted, "When it was deleted.");
  v.required("expires", t.expires, "From when on garbage collection may remove it.");
}

struct CollectGarbageRequest {
  bool dry_run = false;
  bool now = false;
};
template <class V>
void describe(V& v, CollectGarbageRequest& t) {
  v.type("CollectGarbageRequest", "Collects the garbage of a project.");
  v.optional("dry_run", t.dry_run, "Only say what would be freed.");
  v.optional("now", t.now, "Give the trash, and readers of what has moved, no grace.");
}

struct HolderInfo {
  std::string kind;
  std::string name;
  int64_t bytes = 0;
  int64_t blobs = 0;
};
template <class V>
void describe(V& v, HolderInfo& t) {
  v.type("HolderInfo", "What keeps bytes alive.");
  v.required("kind", t.kind,
             "branch (its head), open commit, commit (one of the newest 100 of a repo), repo (its "
             "other commits), pipeline (its jobs), trash or upload.");
  v.required("name", t.name, "Its name. Of more than 1,000 the smallest are told in sum, by kind.");
  v.required("bytes", t.bytes,
             "Bytes as stored that it keeps and none before it, in that order; of an upload, what "
             "was written since it began and nothing needs yet.");
  v.required("blobs", t.blobs, "Chunks and nodes of these.");
}

struct CollectionInfo {
  int64_t number = 0;
  bool running = false;
  std::string phase;
  bool dry_run = false;
  Timestamp started;
  Timestamp finished;
  std::string error;
  std::string hint;
  int64_t packs = 0;
  int64_t stored_bytes = 0;
  int64_t live_bytes = 0;
  int64_t young_bytes = 0;
  int64_t missing_blobs = 0;
  int64_t dead_packs = 0;
  int64_t dead_bytes = 0;
  int64_t rewritten_packs = 0;
  int64_t rewritten_bytes = 0;
  int64_t rescued_packs = 0;
  int64_t forgotten_results = 0;
  int64_t ended_uploads = 0;
  int64_t freed_objects = 0;
  int64_t freed_bytes = 0;
  int64_t waiting_packs = 0;
  std::vector<HolderInfo> holders;
};
template <class V>
void describe(V& v, CollectionInfo& t) {
  v.type("CollectionInfo",
         "A garbage collection of a project: the one that runs, or the last one.");
  v.required("number", t.number, "Counts those of this server since its start; 0: none yet.");
  v.required("running", t.running, "Whether it still runs.");
  v.optional("phase", t.phase, "What it does now.");
  v.optional("dry_run", t.dry_run, "It changes nothing.");
  v.optional("started", t.started, "When it began.");
  v.optional("finished", t.finished, "When it ended.");
  v.optional("error", t.error, "Why it failed; another one goes on from there.");
  v.optional("hint", t.hint, "What to do about it.");
  v.optional("packs", t.packs, "Packs of the project.");
  v.optional("stored_bytes", t.stored_bytes, "Bytes of chunks and nodes in them.");
  v.optional("live_bytes", t.live_bytes, "Of these, what something needs.");
  v.optional("young_bytes", t.young_bytes,
             "Bytes that nothing needs, in packs too young to tell: writers may be about to.");
  v.optional("missing_blobs", t.missing_blobs, "Needed, but in no pack: damage. See fsck.");
  v.optional("dead_packs", t.dead_packs, "Packs in which nothing is needed.");
  v.optional("dead_bytes", t.dead_bytes, "Bytes that go, with those in rewritten packs.");
  v.optional("rewritten_packs", t.rewritten_packs, "Half-dead and small packs that were joined.");
  v.optional("rewritten_bytes", t.rewritten_bytes, "What was copied out of them.");
  v.optional("rescued_packs", t.rescued_packs, "Packs that were needed again meanwhile.");
  v.optional("forgotten_results", t.forgotten_results,
             "Results of datums that cannot be reused any more.");
  v.optional("ended_uploads", t.ended_uploads,
             "Uploads that nobody had used for two minutes, and that `now` ended.");
  v.optional("freed_objects", t.freed_objects, "Objects that were deleted.");
  v.optional("freed_bytes", t.freed_bytes, "Their bytes.");
  v.optional("waiting_packs", t.waiting_packs,
             "Packs that are deleted when readers and writers of before are done.");
  v.optional("holders", t.holders, "What keeps bytes alive.");
}

struct MaintenanceInfo {
  bool paused = false;
  std::string reason;
  Timestamp since;
};
template <class V>
void describe(V& v, MaintenanceInfo& t) {
  v.type("MaintenanceInfo", "Whether the installation is read-only.");
  v.optional("paused", t.paused, "It is.");
  v.optional("reason", t.reason, "Why, as whoever paused it said.");
  v.optional("since", t.since, "Since when.");
}

struct PauseRequest {
  std::string reason;
};
template <class V>
void describe(V& v, PauseRequest& t) {
  v.type("PauseRequest", "Makes the installation read-only.");
  v.optional("reason", t.reason, "Shown to those whose writes are refused.");
}

}  // namespace qanat::api
