// Executes transactions of the embedded store in SQLite transactions. Internal to meta.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "qanat/meta/sqlite_connection.h"
#include "qanat/meta/sqlite_reader.h"
#include "qanat/meta/store.h"

namespace qanat::meta {

// begin(), any number of changes, then commit() or roll_back(). One thread at a time.
class SqliteWriter {
 public:
  // Opens the database; makes the tables in a new one.
  static Result<std::unique_ptr<SqliteWriter>> open(const SqliteVfs& vfs, const std::string& path);

  // As of the last commit(); between begin() and commit() as it will be.
  const StateRow& state() const { return state_; }
  Result<std::vector<std::pair<int64_t, int64_t>>> read_leases();  // id, ttl in ms

  Status begin();
  // The transaction must have been checked, and its leases must exist. An error is SQLite's.
  Result<TransactionResult> execute(const Transaction& transaction);
  Result<int64_t> grant_lease(int64_t ttl_ms);
  Result<TransactionResult> end_lease(int64_t lease);  // and erases its keys
  // Drops a bounded part of what is older than `target`.
  Status compact(int64_t target);
  // Durable when it returns OK. kResourceExhausted: not done. Other errors: the outcome is unknown.
  Status commit();
  void roll_back();
  // Whether this batch has changed a key so far.
  bool changed() const { return state_.revision != durable_.revision; }
  // An error of SQLite since begin(): only roll_back() helps.
  bool failed() const { return failed_; }

  int log_pages() const { return connection_->log_pages(); }
  // Returns the pages that stay in the log.
  Result<int> checkpoint() { return connection_->checkpoint(); }

 private:
  explicit SqliteWriter(std::unique_ptr<Connection> connection)
      : connection_(std::move(connection)) {}
  Status prepare();
  Result<TransactionResult> execute_unguarded(const Transaction& transaction);
  Status put(const Operation& operation, int64_t revision);
  Result<int64_t> erase_range(const KeyRange& range, int64_t revision);
  Status erase(std::string_view key, int64_t revision);
  Status keep_past(std::string_view key, int64_t revision);
  Status add_event(std::string_view key, int64_t revision, bool deleted);
  template <class T>
  Result<T> guard(Result<T> result);

  std::unique_ptr<Connection> connection_;
  StateRow state_;
  StateRow durable_;
  bool failed_ = false;
};

// Reads every page and compares the tables with each other. kDataLoss.
Status check_tables(Connection& connection);

}  // namespace qanat::meta
