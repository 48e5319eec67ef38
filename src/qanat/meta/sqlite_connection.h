// A thin owner of one SQLite connection and its prepared statements. Internal to meta.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "qanat/base/status.h"
#include "qanat/meta/sqlite_vfs.h"

struct sqlite3;
struct sqlite3_stmt;

namespace qanat::meta {

class Connection;

// A statement in use: bind, step through the rows, read columns. Columns are counted from 0 and
// views of them live until the next step. Destroyed, it is reset and its bindings are cleared.
class Query {
 public:
  Query(Connection& connection, sqlite3_stmt* statement)
      : connection_(connection), statement_(statement) {}
  ~Query();
  Query(Query&& other) noexcept
      : connection_(other.connection_),
        statement_(std::exchange(other.statement_, nullptr)),
        bound_(other.bound_) {}

  // In order of the `?`s. Text is borrowed until the Query is destroyed.
  Query& bind(int64_t value);
  Query& bind(std::string_view bytes);

  Result<bool> step();  // true: there is a row
  Status run();         // to the end, ignoring rows
  int64_t integer(int column) const;
  std::string_view bytes(int column) const;

 private:
  Connection& connection_;
  sqlite3_stmt* statement_;
  int bound_ = 0;
};

// One thread at a time.
class Connection {
 public:
  // `read_only` connections refuse writes, but take part in the log's bookkeeping.
  static Result<std::unique_ptr<Connection>> open(const SqliteVfs& vfs, const std::string& path,
                                                  bool read_only);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Prepares `sql` once and keeps it. A statement may be in use by one Query at a time.
  Result<Query> query(std::string_view sql);
  Status run(std::string_view sql);
  // Writes the log's pages into the database. Returns the pages that stay in the log.
  Result<int> checkpoint();
  // Pages in the log at the last commit of this connection.
  int log_pages() const { return log_pages_; }

  // SQLite's code as a Status.
  Status error(int code, std::string_view what) const;

 private:
  Connection(const SqliteVfs& vfs, sqlite3* database) : vfs_(vfs), database_(database) {}

  const SqliteVfs& vfs_;
  sqlite3* database_;
  std::unordered_map<std::string, sqlite3_stmt*> statements_;
  int log_pages_ = 0;
};

}  // namespace qanat::meta
