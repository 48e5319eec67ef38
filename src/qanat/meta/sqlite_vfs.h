// SQLite's files over FileSystem, so that a test can own the disk beneath the database.
//
// The wal-index (SQLite's shared memory) and the file locks live in this process's heap: one
// process has the database open at a time, which the store ensures with a lock file. The wal-index
// is rebuilt from the log when the database is opened, as after a crash.
//
// Registered under a name of its own while the object lives. Thread safe, as SQLite demands.
#pragma once

#include <memory>
#include <string>

#include "qanat/base/file_system.h"

namespace qanat::meta {

class SqliteVfs {
 public:
  // `files` must outlive the object, and the object every connection that uses it.
  explicit SqliteVfs(FileSystem& files);
  ~SqliteVfs();
  SqliteVfs(const SqliteVfs&) = delete;
  SqliteVfs& operator=(const SqliteVfs&) = delete;

  const std::string& name() const;
  // The last error of the file system, which SQLite's own codes say little about. OK if none yet.
  Status last_error() const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

// Syncs made on this thread while one of these lives are counted as the checkpoint's.
class CheckpointScope {
 public:
  CheckpointScope();
  ~CheckpointScope();
};

}  // namespace qanat::meta
