#include "qanat/meta/sqlite_writer.h"

#include "qanat/base/counters.h"
#include "qanat/base/string.h"

namespace qanat::meta {
namespace {

constexpr int64_t kFormat = 1;
constexpr int64_t kCompactEvents = 256;  // a batch

constexpr std::string_view kTables[] = {
    "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL, "
    "revision INTEGER NOT NULL, compacted INTEGER NOT NULL, next_lease INTEGER NOT NULL)",
    "INSERT INTO state VALUES (1, 1, 1, 0, 1)",
    "CREATE TABLE item (key BLOB PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL, "
    "modified INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX item_lease ON item (lease) WHERE lease <> 0",
    "CREATE TABLE past (key BLOB NOT NULL, value BLOB NOT NULL, created INTEGER NOT NULL, "
    "modified INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER NOT NULL, "
    "replaced INTEGER NOT NULL, PRIMARY KEY (key, modified)) WITHOUT ROWID",
    "CREATE TABLE event (revision INTEGER NOT NULL, key BLOB NOT NULL, deleted INTEGER NOT NULL, "
    "PRIMARY KEY (revision, key)) WITHOUT ROWID",
    "CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl_ms INTEGER NOT NULL)",
};

Counter& transactions() {
  static Counter& all =
      counter("qanat_meta_transactions_total", "Metadata transactions that changed something");
  return all;
}

// The first integer that `sql` gives.
Result<int64_t> integer_of(Connection& connection, std::string_view sql) {
  QANAT_ASSIGN_OR_RETURN(auto query, connection.query(sql));
  QANAT_ASSIGN_OR_RETURN(bool row, query.step());
  return row ? query.integer(0) : 0;
}

}  // namespace

Result<std::unique_ptr<SqliteWriter>> SqliteWriter::open(const SqliteVfs& vfs,
                                                         const std::string& path) {
  QANAT_ASSIGN_OR_RETURN(auto connection, Connection::open(vfs, path, false));
  std::unique_ptr<SqliteWriter> writer(new SqliteWriter(std::move(connection)));
  QANAT_RETURN_IF_ERROR(writer->prepare());
  return writer;
}

Status SqliteWriter::prepare() {
  QANAT_ASSIGN_OR_RETURN(
      int64_t tables,
      integer_of(*connection_, "SELECT count(*) FROM sqlite_schema WHERE name = 'state'"));
  if (tables == 0) {
    QANAT_RETURN_IF_ERROR(connection_->run("BEGIN IMMEDIATE"));
    for (std::string_view sql : kTables) QANAT_RETURN_IF_ERROR(connection_->run(sql));
    QANAT_RETURN_IF_ERROR(connection_->run("COMMIT"));
  }
  QANAT_ASSIGN_OR_RETURN(int64_t format, integer_of(*connection_, "SELECT format FROM state"));
  if (format != kFormat) {
    return failed_precondition(
        str_cat("the metadata has format ", format, "; this program knows format ", kFormat),
        "use the version of qanat that wrote it, or a fresh data folder");
  }
  QANAT_ASSIGN_OR_RETURN(state_, read_state(*connection_));
  durable_ = state_;
  return ok_status();
}

Result<std::vector<std::pair<int64_t, int64_t>>> SqliteWriter::read_leases() {
  std::vector<std::pair<int64_t, int64_t>> leases;
  QANAT_ASSIGN_OR_RETURN(auto query, connection_->query("SELECT id, ttl_ms FROM lease"));
  for (;;) {
    QANAT_ASSIGN_OR_RETURN(bool row, query.step());
    if (!row) return leases;
    leases.emplace_back(query.integer(0), query.integer(1));
  }
}

Status SqliteWriter::begin() {
  failed_ = false;
  return connection_->run("BEGIN IMMEDIATE");
}

// Notes errors.
template <class T>
Result<T> SqliteWriter::guard(Result<T> result) {
  if (!result.ok()) failed_ = true;
  return result;
}

Result<TransactionResult> SqliteWriter::execute(const Transaction& transaction) {
  return guard(execute_unguarded(transaction));
}

Result<TransactionResult> SqliteWriter::execute_unguarded(const Transaction& transaction) {
  TransactionResult result;
  result.succeeded = true;
  for (const Compare& compare : transaction.compares) {
    QANAT_ASSIGN_OR_RETURN(auto item, read_item(*connection_, compare.key));
    if (holds(compare, item ? &*item : nullptr)) continue;
    result.succeeded = false;
    break;
  }
  const int64_t revision = state_.revision + 1;
  bool changed = false;
  for (const Operation& operation : result.succeeded ? transaction.then : transaction.otherwise) {
    OperationResult& out = result.results.emplace_back();
    switch (operation.kind) {
      case Operation::Kind::kPut:
        QANAT_RETURN_IF_ERROR(put(operation, revision));
        changed = true;
        break;
      case Operation::Kind::kDelete: {
        QANAT_ASSIGN_OR_RETURN(out.deleted, erase_range(operation.range, revision));
        changed |= out.deleted > 0;
        break;
      }
      case Operation::Kind::kRange: {
        QANAT_ASSIGN_OR_RETURN(out.range,
                               read_range(*connection_, operation.range, operation.options));
        out.range.revision = changed ? revision : state_.revision;
        break;
      }
    }
  }
  if (changed) {
    state_.revision = revision;
    transactions().add();
  }
  result.revision = state_.revision;
  return result;
}

Status SqliteWriter::put(const Operation& operation, int64_t revision) {
  const std::string& key = operation.range.begin;
  QANAT_RETURN_IF_ERROR(keep_past(key, revision));
  QANAT_ASSIGN_OR_RETURN(
      auto query,
      connection_->query("INSERT INTO item VALUES (?1, ?2, ?3, ?3, 1, ?4) ON CONFLICT (key) DO "
                         "UPDATE SET value = ?2, modified = ?3, version = version + 1, "
                         "lease = ?4"));
  QANAT_RETURN_IF_ERROR(
      query.bind(key).bind(operation.value).bind(revision).bind(operation.lease).run());
  return add_event(key, revision, false);
}

Result<int64_t> SqliteWriter::erase_range(const KeyRange& range, int64_t revision) {
  QANAT_ASSIGN_OR_RETURN(RangeResult found, read_range(*connection_, range, {.keys_only = true}));
  for (const KeyValue& item : found.items) QANAT_RETURN_IF_ERROR(erase(item.key, revision));
  return static_cast<int64_t>(found.items.size());
}

Status SqliteWriter::erase(std::string_view key, int64_t revision) {
  QANAT_RETURN_IF_ERROR(keep_past(key, revision));
  QANAT_ASSIGN_OR_RETURN(auto query, connection_->query("DELETE FROM item WHERE key = ?"));
  QANAT_RETURN_IF_ERROR(query.bind(key).run());
  return add_event(key, revision, true);
}

// Copies the current value, if there is one, to `past`.
Status SqliteWriter::keep_past(std::string_view key, int64_t revision) {
  QANAT_ASSIGN_OR_RETURN(auto query,
                         connection_->query("INSERT INTO past SELECT key, value, created, "
                                            "modified, version, lease, ?2 FROM item "
                                            "WHERE key = ?1"));
  return query.bind(key).bind(revision).run();
}

Status SqliteWriter::add_event(std::string_view key, int64_t revision, bool deleted) {
  QANAT_ASSIGN_OR_RETURN(auto query, connection_->query("INSERT INTO event VALUES (?, ?, ?)"));
  return query.bind(revision).bind(key).bind(int64_t{deleted}).run();
}

Result<int64_t> SqliteWriter::grant_lease(int64_t ttl_ms) {
  const int64_t id = state_.next_lease++;
  auto grant = [&]() -> Result<int64_t> {
    QANAT_ASSIGN_OR_RETURN(auto query, connection_->query("INSERT INTO lease VALUES (?, ?)"));
    QANAT_RETURN_IF_ERROR(query.bind(id).bind(ttl_ms).run());
    return id;
  };
  return guard(grant());
}

Result<TransactionResult> SqliteWriter::end_lease(int64_t lease) {
  auto end = [&]() -> Result<TransactionResult> {
    std::vector<std::string> keys;
    {
      QANAT_ASSIGN_OR_RETURN(auto query, connection_->query("SELECT key FROM item WHERE lease = ? "
                                                            "AND lease <> 0 ORDER BY key"));
      query.bind(lease);
      for (;;) {
        QANAT_ASSIGN_OR_RETURN(bool row, query.step());
        if (!row) break;
        keys.emplace_back(query.bytes(0));
      }
    }
    const int64_t revision = state_.revision + 1;
    for (const std::string& key : keys) QANAT_RETURN_IF_ERROR(erase(key, revision));
    if (!keys.empty()) {
      state_.revision = revision;
      transactions().add();
    }
    QANAT_ASSIGN_OR_RETURN(auto query, connection_->query("DELETE FROM lease WHERE id = ?"));
    QANAT_RETURN_IF_ERROR(query.bind(lease).run());
    return TransactionResult{true, state_.revision, {}};
  };
  return guard(end());
}

Status SqliteWriter::compact(int64_t target) {
  if (target <= state_.compacted) return ok_status();
  struct Old {
    int64_t revision;
    std::string key;
  };
  std::vector<Old> old;
  {
    QANAT_ASSIGN_OR_RETURN(auto query,
                           connection_->query("SELECT revision, key FROM event WHERE revision <= ? "
                                              "ORDER BY revision, key LIMIT ?"));
    query.bind(target).bind(kCompactEvents);
    for (;;) {
      QANAT_ASSIGN_OR_RETURN(bool row, query.step());
      if (!row) break;
      old.push_back({query.integer(0), std::string(query.bytes(1))});
    }
  }
  for (const Old& event : old) {
    QANAT_ASSIGN_OR_RETURN(auto past,
                           connection_->query("DELETE FROM past WHERE key = ? AND replaced <= ?"));
    QANAT_RETURN_IF_ERROR(past.bind(event.key).bind(event.revision).run());
    QANAT_ASSIGN_OR_RETURN(auto gone,
                           connection_->query("DELETE FROM event WHERE revision = ? AND key = ?"));
    QANAT_RETURN_IF_ERROR(gone.bind(event.revision).bind(event.key).run());
  }
  // A revision that is only half gone counts as gone.
  const bool all = static_cast<int64_t>(old.size()) < kCompactEvents;
  state_.compacted = std::max(state_.compacted, all ? target : old.back().revision);
  return ok_status();
}

Status SqliteWriter::commit() {
  const bool changed = state_.revision != durable_.revision ||
                       state_.compacted != durable_.compacted ||
                       state_.next_lease != durable_.next_lease;
  if (changed) {
    QANAT_ASSIGN_OR_RETURN(auto query,
                           connection_->query("UPDATE state SET revision = ?, compacted = ?, "
                                              "next_lease = ?"));
    QANAT_RETURN_IF_ERROR(
        query.bind(state_.revision).bind(state_.compacted).bind(state_.next_lease).run());
  }
  QANAT_RETURN_IF_ERROR(connection_->run("COMMIT"));
  durable_ = state_;
  return ok_status();
}

void SqliteWriter::roll_back() {
  (void)connection_->run("ROLLBACK");  // fails if SQLite has rolled back by itself
  state_ = durable_;
}

Status check_tables(Connection& connection) {
  {
    QANAT_ASSIGN_OR_RETURN(auto query, connection.query("PRAGMA integrity_check(1)"));
    QANAT_ASSIGN_OR_RETURN(bool row, query.step());
    if (!row || query.bytes(0) != "ok") {
      return data_loss(str_cat("metadata: ", row ? query.bytes(0) : "no answer"));
    }
  }
  struct Rule {
    std::string_view sql;  // counts violations
    std::string_view what;
  };
  constexpr Rule kRules[] = {
      {"SELECT count(*) FROM item, state WHERE modified > revision OR created > modified OR "
       "version < 1",
       "items with impossible revisions"},
      {"SELECT count(*) FROM past, state WHERE replaced > revision OR replaced <= modified",
       "past values with impossible revisions"},
      {"SELECT count(*) FROM item, state WHERE modified > compacted AND NOT EXISTS (SELECT 1 FROM "
       "event WHERE event.revision = item.modified AND event.key = item.key)",
       "items without the event that made them"},
      {"SELECT count(*) FROM event e, state s WHERE e.revision > s.compacted AND NOT e.deleted AND "
       "NOT EXISTS (SELECT 1 FROM item i WHERE i.key = e.key AND i.modified = e.revision) AND NOT "
       "EXISTS (SELECT 1 FROM past p WHERE p.key = e.key AND p.modified = e.revision)",
       "events whose value is gone"},
      {"SELECT count(*) FROM item WHERE lease <> 0 AND lease NOT IN (SELECT id FROM lease)",
       "items of a lease that is not there"},
  };
  for (const Rule& rule : kRules) {
    QANAT_ASSIGN_OR_RETURN(int64_t count, integer_of(connection, rule.sql));
    if (count > 0) return data_loss(str_cat("metadata has ", count, " ", rule.what));
  }
  return ok_status();
}

}  // namespace qanat::meta
