#include "qanat/meta/watch_hub.h"

namespace qanat::meta {
namespace {

constexpr int64_t kPageEvents = 1'000;

}  // namespace

struct WatchHub::Entry {
  KeyRange range;
  WatchCallback callback;
  int64_t next = 0;  // the first revision not told yet; of the hub's thread
  // Under the hub's mutex:
  bool calling = false;
  bool ended = false;
};

class WatchHub::Handle : public Watch {
 public:
  Handle(WatchHub& hub, std::shared_ptr<Entry> entry) : hub_(hub), entry_(std::move(entry)) {}
  ~Handle() override { hub_.remove(entry_); }

 private:
  WatchHub& hub_;
  const std::shared_ptr<Entry> entry_;
};

WatchHub::WatchHub(ReaderPool& readers) : readers_(readers), thread_([this] { run(); }) {}

WatchHub::~WatchHub() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void WatchHub::advance(int64_t revision) {
  MutexLock lock(mutex_);
  revision_ = revision;
  changed_.notify_all();
}

std::unique_ptr<Watch> WatchHub::add(const KeyRange& range, int64_t from_revision,
                                     WatchCallback callback) {
  auto entry = std::make_shared<Entry>(Entry{range, std::move(callback), from_revision});
  MutexLock lock(mutex_);
  entries_.push_back(entry);
  changed_.notify_all();
  return std::make_unique<Handle>(*this, entry);
}

void WatchHub::remove(const std::shared_ptr<Entry>& entry) {
  MutexLock lock(mutex_);
  entry->ended = true;
  entries_.remove(entry);
  if (std::this_thread::get_id() == thread_.get_id()) return;
  while (entry->calling) changed_.wait(mutex_);
}

void WatchHub::run() {
  MutexLock lock(mutex_);
  for (;;) {
    // What is to be served now; serving happens without the lock.
    const int64_t revision = revision_;
    std::vector<std::shared_ptr<Entry>> behind;
    for (const auto& entry : entries_) {
      if (!entry->ended && (stopping_ || entry->next <= revision)) behind.push_back(entry);
    }
    if (behind.empty()) {
      if (stopping_) return;
      changed_.wait(mutex_);
      continue;
    }
    for (const auto& entry : behind) {
      if (entry->ended) continue;
      entry->calling = true;
      const bool stopping = stopping_;
      lock.unlock();
      if (stopping) {
        entry->callback({cancelled("the metadata store closes"), revision, {}});
      } else {
        serve(entry, revision);
      }
      lock.lock();
      entry->calling = false;
      if (stopping) entry->ended = true;
      changed_.notify_all();
    }
  }
}

void WatchHub::serve(const std::shared_ptr<Entry>& entry, int64_t revision) {
  if (page_from_ != entry->next || page_.up_to < entry->next) {
    page_from_ = 0;
    Status status = readers_.read([&](Connection& connection) -> Status {
      QANAT_ASSIGN_OR_RETURN(page_, read_events(connection, entry->next, revision, kPageEvents));
      return ok_status();
    });
    if (!status.ok()) {
      {
        MutexLock lock(mutex_);
        entry->ended = true;
      }
      entry->callback({status, revision, {}});
      return;
    }
    page_from_ = entry->next;
  }
  WatchBatch batch;
  batch.revision = page_.up_to;
  for (const Event& event : page_.events) {
    if (entry->range.contains(event.item.key)) batch.events.push_back(event);
  }
  entry->next = page_.up_to + 1;
  if (!batch.events.empty()) entry->callback(batch);
}

}  // namespace qanat::meta
