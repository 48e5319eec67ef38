#include "qanat/meta/sqlite_connection.h"

#include <sqlite3.h>

#include "qanat/base/string.h"

namespace qanat::meta {

Query::~Query() {
  if (statement_ == nullptr) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

Query& Query::bind(int64_t value) {
  sqlite3_bind_int64(statement_, ++bound_, value);
  return *this;
}

Query& Query::bind(std::string_view bytes) {
  // A null pointer would bind NULL.
  const char* data = bytes.data() == nullptr ? "" : bytes.data();
  sqlite3_bind_blob64(statement_, ++bound_, data, bytes.size(), SQLITE_STATIC);
  return *this;
}

Result<bool> Query::step() {
  int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return connection_.error(code, sqlite3_sql(statement_));
}

Status Query::run() {
  for (;;) {
    QANAT_ASSIGN_OR_RETURN(bool row, step());
    if (!row) return ok_status();
  }
}

int64_t Query::integer(int column) const { return sqlite3_column_int64(statement_, column); }

std::string_view Query::bytes(int column) const {
  const void* data = sqlite3_column_blob(statement_, column);
  if (data == nullptr) return {};
  return {static_cast<const char*>(data),
          static_cast<size_t>(sqlite3_column_bytes(statement_, column))};
}

Result<std::unique_ptr<Connection>> Connection::open(const SqliteVfs& vfs, const std::string& path,
                                                     bool read_only) {
  sqlite3* database = nullptr;
  int code = sqlite3_open_v2(path.c_str(), &database,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                             vfs.name().c_str());
  std::unique_ptr<Connection> connection(new Connection(vfs, database));
  if (code != SQLITE_OK) return connection->error(code, str_cat("open ", path));
  sqlite3_extended_result_codes(database, 1);
  // Closing is like a crash: the next open reads the log. So closing cannot fail half way; the
  // store moves the log into the database before, if it can.
  sqlite3_db_config(database, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  sqlite3_busy_timeout(database, 10'000);
  sqlite3_wal_hook(
      database,
      [](void* self, sqlite3*, const char*, int pages) {
        static_cast<Connection*>(self)->log_pages_ = pages;
        return SQLITE_OK;
      },
      connection.get());
  for (std::string_view pragma : {"PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL",
                                  "PRAGMA temp_store = MEMORY", "PRAGMA cache_size = -4096"}) {
    QANAT_RETURN_IF_ERROR(connection->run(pragma));
  }
  if (read_only) QANAT_RETURN_IF_ERROR(connection->run("PRAGMA query_only = 1"));
  return connection;
}

Connection::~Connection() {
  for (auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  sqlite3_close(database_);
}

Result<Query> Connection::query(std::string_view sql) {
  auto [place, fresh] = statements_.try_emplace(std::string(sql), nullptr);
  if (fresh) {
    int code = sqlite3_prepare_v3(database_, sql.data(), static_cast<int>(sql.size()),
                                  SQLITE_PREPARE_PERSISTENT, &place->second, nullptr);
    if (code != SQLITE_OK) {
      statements_.erase(place);
      return error(code, sql);
    }
  }
  return Query(*this, place->second);
}

Status Connection::run(std::string_view sql) {
  QANAT_ASSIGN_OR_RETURN(auto prepared, query(sql));
  return prepared.run();
}

Result<int> Connection::checkpoint() {
  CheckpointScope scope;
  int in_log = 0, moved = 0;
  int code =
      sqlite3_wal_checkpoint_v2(database_, nullptr, SQLITE_CHECKPOINT_PASSIVE, &in_log, &moved);
  if (code != SQLITE_OK) return error(code, "checkpoint");
  if (in_log == moved) log_pages_ = 0;
  return in_log - moved;
}

Status Connection::error(int code, std::string_view what) const {
  std::string message = str_cat("metadata: ", sqlite3_errmsg(database_), " (", what, ")");
  switch (code & 0xff) {
    case SQLITE_FULL:
      return resource_exhausted(message, "make room on the disk of the data folder");
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return data_loss(message, "restore the data folder from a backup");
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return unavailable(message);
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN: {
      Status cause = vfs_.last_error();
      return internal_error(cause.ok() ? message : str_cat(message, ": ", cause.message()));
    }
    default:
      return internal_error(message);
  }
}

}  // namespace qanat::meta
