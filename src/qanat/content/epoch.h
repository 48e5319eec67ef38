// The epoch of a project: how writers and garbage collection agree without locks.
//
// Collection condemns packs, and moves the epoch in the same transaction. A writer remembers the
// epoch's revision when it begins; its transaction compares it. If it moved, the writer looks
// whether a pack that it relied on is among the condemned. Why that is enough: gc_collector.h.
//
// Keys: /v1/gc/<project>/epoch                                the number, 16 hex digits; absent: 0
//       /v1/gc/<project>/condemned/<epoch hex>/<pack id hex>  one for each condemned pack; the last
//       parts are those of its object key
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "qanat/base/thread_annotations.h"
#include "qanat/chunk/pack.h"
#include "qanat/meta/store.h"

namespace qanat::content {

std::string epoch_key(std::string_view project);
std::string condemned_prefix(std::string_view project);

// The epoch's number.
Result<uint64_t> read_epoch(const meta::Store& meta, std::string_view project);

struct Epoch {
  uint64_t number = 0;
  int64_t revision = 0;  // mod revision of the epoch's key; 0 while it is absent
  std::shared_ptr<const std::set<chunk::PackId>> condemned;
};

// Reads the epoch; the condemned packs only when it has moved. Thread-safe. Meta is borrowed.
class EpochReader {
 public:
  // `on_move` is called after an epoch was read that this reader did not know, before it is given
  // out: it brings the indexes up to date, so that a pack that was swept, and therefore is not
  // among the condemned any more, is not found through an old state of an index.
  EpochReader(meta::Store* meta, std::string project, std::function<Status()> on_move = nullptr);
  Result<Epoch> current();

 private:
  meta::Store* const meta_;
  const std::string project_;
  const std::function<Status()> on_move_;
  Mutex mutex_;
  Epoch last_ GUARDED_BY(mutex_);
};

}  // namespace qanat::content
