// Objects as files in a folder, reached through FileSystem.
//
// The object `packs/p/0/ab` is the file `<root>/packs/p/0/ab`. It is created in place (O_EXCL) and
// written through a small buffer; finish() costs one sync of the file and one of its folder. There
// is no rename: nothing refers to an object before it is finished, so half an object is garbage
// like any other, found by listing and removed by garbage collection. The parent folders of a new
// object are made durable before it is created, which is looked after once per folder and process.
//
// Counters: qanat_object_file_syncs_total, qanat_object_directory_syncs_total,
// qanat_objects_created_total, qanat_object_reads_total, qanat_object_written_bytes_total,
// qanat_object_read_bytes_total.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "qanat/base/file_system.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/object/object_store.h"

namespace qanat::object {

struct LocalObjectStoreOptions {
  // New objects are refused when less than max(reserve_bytes, reserve_fraction of the disk) is
  // free, so that reading, removing, garbage collection and the end of running jobs can go on. Of
  // it, a quarter is kept from those too: metadata needs it.
  uint64_t reserve_bytes = 64u << 20;
  double reserve_fraction = 0.01;
};

class LocalObjectStore : public ObjectStore {
 public:
  // Creates the folder `root` if need be. `files` must outlive the store.
  static Result<std::unique_ptr<LocalObjectStore>> open(FileSystem& files, std::string root,
                                                        LocalObjectStoreOptions options = {});

  using ObjectStore::create;
  Result<std::unique_ptr<ObjectWriter>> create(std::string_view key,
                                               CreateOptions options) override;
  Result<std::string> read(std::string_view key, int64_t offset, int64_t length) const override;
  Result<int64_t> size(std::string_view key) const override;
  Status remove(std::string_view key) override;
  Status list(std::string_view prefix, const Visitor& each) const override;
  std::string describe() const override;
  const std::string& root() const { return root_; }

  // kResourceExhausted, with a hint, if `bytes` more would touch the reserve.
  Status check_space(uint64_t bytes, bool may_use_reserve = false) const;

 private:
  class Writer;

  LocalObjectStore(FileSystem& files, std::string root, LocalObjectStoreOptions options);
  std::string path_of(std::string_view key) const;
  Status make_folder(const std::string& folder);
  Status make_known(const std::string& folder) REQUIRES(mutex_);
  Status list_folder(const std::string& folder, const std::string& key_prefix,
                     std::string_view prefix, const Visitor& each) const;

  FileSystem& files_;
  const std::string root_;
  const LocalObjectStoreOptions options_;
  Mutex mutex_;
  std::set<std::string> folders_ GUARDED_BY(mutex_);  // known to exist
};

}  // namespace qanat::object
