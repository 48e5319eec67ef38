#include "qanat/content/content_store.h"

#include <algorithm>
#include <map>
#include <thread>

#include "qanat/base/bytes.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/content/epoch.h"
#include "qanat/content/packing_writer.h"

namespace qanat::content {
namespace {

// How often replaced segments are looked for, and a failed compaction is tried again.
constexpr int64_t kMaintenanceIntervalMs = 60'000;
// They wait for the store, not for a core.
constexpr size_t kSyncThreads = 4;

// An entry of a pack's footer says "this pack"; outside of it, the pack has to be named.
std::string rebase_location(std::string_view value, std::string_view object_key) {
  if (value.empty() || value[0] != 0) return std::string(value);
  Result<chunk::PackId> pack = parse_pack_object_key(object_key);
  if (!pack.ok()) return std::string(value);  // refused by whoever parses it: it names no pack
  std::string out;
  out.reserve(value.size() + 24);
  put_u8(out, 1);
  put_varint(out, pack->epoch);
  out.append(reinterpret_cast<const char*>(pack->id.data()), pack->id.size());
  out.append(value.substr(1));
  return out;
}

class ContentStoreImpl : public ContentStore {
 public:
  ContentStoreImpl(std::string project, meta::Store* meta, object::ObjectStore* objects,
                   std::unique_ptr<SegmentIndex> blob_index,
                   std::unique_ptr<SegmentIndex> result_index, BlockCache* blob_cache,
                   const ContentOptions& options, ThreadPool* encoders, ThreadPool* syncers)
      : project_(std::move(project)),
        meta_(meta),
        objects_(objects),
        session_(options.session),
        pins_(options.pins),
        encoders_(encoders),
        syncers_(syncers),
        blob_index_(std::move(blob_index)),
        result_index_(std::move(result_index)),
        blobs_(project_, objects, blob_index_.get(), blob_cache),
        epochs_(meta, project_, [this]() -> Status {
          QANAT_RETURN_IF_ERROR(blob_index_->refresh());
          return result_index_->refresh();
        }) {}

  const std::string& project() const override { return project_; }
  BlobStore& blobs() override { return blobs_; }
  SegmentIndex& results() override { return *result_index_; }
  EpochReader& epochs() override { return epochs_; }
  std::unique_ptr<ContentWriter> new_writer(WriterOptions options) override {
    return make_packing_writer(
        {meta_, objects_, &blobs_, &epochs_, session_, pins_, encoders_, syncers_}, options);
  }

  // What is due, or (`all`) also what is not urgent.
  Status maintain(bool all) {
    for (SegmentIndex* index : {blob_index_.get(), result_index_.get()}) {
      if (index->wants_compaction()) QANAT_RETURN_IF_ERROR(index->compact());
      if (all) QANAT_RETURN_IF_ERROR(index->remove_replaced(/*now=*/false));
    }
    return ok_status();
  }

 private:
  const std::string project_;
  meta::Store* const meta_;
  object::ObjectStore* const objects_;
  const std::function<SessionMark()> session_;
  EpochPins* const pins_;
  ThreadPool* const encoders_;
  ThreadPool* const syncers_;
  const std::unique_ptr<SegmentIndex> blob_index_;
  const std::unique_ptr<SegmentIndex> result_index_;
  BlobStore blobs_;
  EpochReader epochs_;
};

class ContentStoresImpl : public ContentStores {
 public:
  ContentStoresImpl(meta::Store* meta, object::ObjectStore* objects, ContentOptions options)
      : meta_(meta),
        objects_(objects),
        options_(std::move(options)),
        index_cache_(options_.index_cache_bytes),
        blob_cache_(options_.blob_cache_bytes) {
    size_t threads = options_.write_threads >= 0 ? static_cast<size_t>(options_.write_threads)
                                                 : std::thread::hardware_concurrency();
    if (options_.write_threads < 0) threads = std::max<size_t>(threads, 1);
    if (threads > 0) {
      encoders_ = std::make_unique<ThreadPool>("encode", threads, 2 * threads);
      syncers_ = std::make_unique<ThreadPool>("sync-packs", kSyncThreads, 2 * kSyncThreads);
    }
    if (options_.background) thread_ = std::thread([this] { run(); });
  }

  ~ContentStoresImpl() override {
    {
      MutexLock lock(wake_mutex_);
      stopping_ = true;
      wake_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
    // While what their watches may call still lives.
    std::map<std::string, std::unique_ptr<ContentStoreImpl>> projects;
    {
      MutexLock lock(mutex_);
      projects.swap(projects_);
    }
  }

  Result<ContentStore*> project(std::string_view name) override {
    MutexLock lock(mutex_);
    std::unique_ptr<ContentStoreImpl>& store = projects_[std::string(name)];
    if (store == nullptr) {
      QANAT_ASSIGN_OR_RETURN(
          std::unique_ptr<SegmentIndex> blobs,
          open_index(name, "blobs", {.rebase = rebase_location, .keep_copies = true}));
      QANAT_ASSIGN_OR_RETURN(std::unique_ptr<SegmentIndex> results,
                             open_index(name, "results", {}));
      store = std::make_unique<ContentStoreImpl>(std::string(name), meta_, objects_,
                                                 std::move(blobs), std::move(results), &blob_cache_,
                                                 options_, encoders_.get(), syncers_.get());
    }
    return store.get();
  }

  Status maintain() override { return maintain(true); }
  const ContentOptions& options() const override { return options_; }

 private:
  Result<std::unique_ptr<SegmentIndex>> open_index(std::string_view project, std::string_view name,
                                                   SegmentIndexOptions options) {
    options.project = project;
    options.name = name;
    options.on_compaction_wanted = [this] { wake(); };
    options.now_ms = options_.now_ms;
    options.epoch = [meta = meta_, name = std::string(project)] { return read_epoch(*meta, name); };
    return SegmentIndex::open(meta_, objects_, &index_cache_, std::move(options));
  }

  Status maintain(bool all) {
    std::vector<ContentStoreImpl*> stores;  // they live as long as this object
    {
      MutexLock lock(mutex_);
      for (const auto& [name, store] : projects_) {
        if (store != nullptr) stores.push_back(store.get());
      }
    }
    Status first;
    for (ContentStoreImpl* store : stores) {
      Status status = store->maintain(all);
      if (first.ok() && !status.ok()) {
        first = status.with_context(str_cat("project ", store->project()));
      }
    }
    return first;
  }

  void wake() {
    MutexLock lock(wake_mutex_);
    wanted_ = true;
    wake_.notify_all();
  }

  void run() {
    while (true) {
      bool all = false;
      {
        MutexLock lock(wake_mutex_);
        while (!wanted_ && !stopping_ && !all) {
          all = !wake_.wait_for_ms(wake_mutex_, kMaintenanceIntervalMs);
        }
        if (stopping_) return;
        wanted_ = false;
      }
      if (Status status = maintain(all); !status.ok()) {
        log_warning("index maintenance failed; it will be tried again", {{"error", status}});
        // Not at once: a full disk, say, does not go away in a moment.
        MutexLock lock(wake_mutex_);
        if (!stopping_) wake_.wait_for_ms(wake_mutex_, 1000);
        if (stopping_) return;
      }
    }
  }

  meta::Store* const meta_;
  object::ObjectStore* const objects_;
  const ContentOptions options_;
  BlockCache index_cache_;
  BlockCache blob_cache_;
  std::unique_ptr<ThreadPool> encoders_;
  std::unique_ptr<ThreadPool> syncers_;

  Mutex mutex_;
  std::map<std::string, std::unique_ptr<ContentStoreImpl>> projects_ GUARDED_BY(mutex_);

  Mutex wake_mutex_;
  CondVar wake_;
  bool wanted_ GUARDED_BY(wake_mutex_) = false;
  bool stopping_ GUARDED_BY(wake_mutex_) = false;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<ContentStores> ContentStores::create(meta::Store* meta,
                                                     object::ObjectStore* objects,
                                                     ContentOptions options) {
  return std::make_unique<ContentStoresImpl>(meta, objects, std::move(options));
}

}  // namespace qanat::content
