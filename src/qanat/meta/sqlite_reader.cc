#include "qanat/meta/sqlite_reader.h"

#include "qanat/base/string.h"

namespace qanat::meta {
namespace {

constexpr size_t kEventPageBytes = 8 << 20;
constexpr std::string_view kColumns = "created, modified, version, lease";

// Reads `key, value` and kColumns, beginning at `column`.
KeyValue read_row(const Query& query) {
  return {.key = std::string(query.bytes(0)),
          .value = std::string(query.bytes(1)),
          .create_revision = query.integer(2),
          .mod_revision = query.integer(3),
          .version = query.integer(4),
          .lease = query.integer(5)};
}

// SELECT ... of one table; binds what bind_part binds.
std::string select_part(std::string_view columns, bool past, bool bounded, bool at_revision) {
  return str_cat("SELECT ", columns, " FROM ", past ? "past" : "item", " WHERE key >= ?",
                 bounded ? " AND key < ?" : "", at_revision ? " AND modified <= ?" : "",
                 past ? " AND replaced > ?" : "");
}

void bind_part(Query& query, const KeyRange& range, int64_t revision, bool past) {
  query.bind(range.begin);
  if (!range.end.empty()) query.bind(range.end);
  if (revision != 0) query.bind(revision);
  if (past) query.bind(revision);
}

Result<Query> select_range(Connection& connection, std::string_view columns, const KeyRange& range,
                           int64_t revision, std::string_view order) {
  const bool bounded = !range.end.empty();
  std::string sql = select_part(columns, false, bounded, revision != 0);
  if (revision != 0) str_append(sql, " UNION ALL ", select_part(columns, true, bounded, true));
  str_append(sql, order);
  QANAT_ASSIGN_OR_RETURN(auto query, connection.query(sql));
  bind_part(query, range, revision, false);
  if (revision != 0) bind_part(query, range, revision, true);
  return query;
}

}  // namespace

Result<StateRow> read_state(Connection& connection) {
  QANAT_ASSIGN_OR_RETURN(auto query,
                         connection.query("SELECT revision, compacted, next_lease FROM state"));
  QANAT_ASSIGN_OR_RETURN(bool row, query.step());
  if (!row) return data_loss("metadata: the table state is empty");
  return StateRow{query.integer(0), query.integer(1), query.integer(2)};
}

Result<std::optional<KeyValue>> read_item(Connection& connection, std::string_view key) {
  QANAT_ASSIGN_OR_RETURN(auto query,
                         connection.query("SELECT key, value, created, modified, version, lease "
                                          "FROM item WHERE key = ?"));
  query.bind(key);
  QANAT_ASSIGN_OR_RETURN(bool row, query.step());
  if (!row) return std::optional<KeyValue>();
  return std::optional<KeyValue>(read_row(query));
}

Result<RangeResult> read_range(Connection& connection, const KeyRange& range,
                               const RangeOptions& options) {
  RangeResult result;
  {
    std::string columns = str_cat("key, ", options.keys_only ? "x''" : "value", ", ", kColumns);
    QANAT_ASSIGN_OR_RETURN(auto query,
                           select_range(connection, columns, range, options.revision,
                                        options.descending ? " ORDER BY 1 DESC" : " ORDER BY 1"));
    for (;;) {
      QANAT_ASSIGN_OR_RETURN(bool row, query.step());
      if (!row) break;
      if (options.limit > 0 && static_cast<int64_t>(result.items.size()) == options.limit) {
        result.more = true;
        break;
      }
      result.items.push_back(read_row(query));
    }
  }
  if (!options.count) return result;
  QANAT_ASSIGN_OR_RETURN(auto query, select_range(connection, "1", range, options.revision, ""));
  for (;;) {
    QANAT_ASSIGN_OR_RETURN(bool row, query.step());
    if (!row) return result;
    ++result.count;
  }
}

Result<EventPage> read_events(Connection& connection, int64_t from, int64_t up_to, int64_t limit) {
  QANAT_ASSIGN_OR_RETURN(StateRow state, read_state(connection));
  if (from <= state.compacted) {
    return gone(
        str_cat("revision ", from, " is compacted; the oldest one kept is ", state.compacted + 1),
        "list again, and watch from the revision of that list");
  }
  QANAT_ASSIGN_OR_RETURN(
      auto query,
      connection.query("SELECT e.key, coalesce(i.value, p.value), coalesce(i.created, p.created), "
                       "e.revision, coalesce(i.version, p.version), coalesce(i.lease, p.lease), "
                       "e.deleted FROM event e "
                       "LEFT JOIN item i ON i.key = e.key AND i.modified = e.revision "
                       "LEFT JOIN past p ON p.key = e.key AND p.modified = e.revision "
                       "WHERE e.revision BETWEEN ? AND ? ORDER BY e.revision, e.key"));
  query.bind(from).bind(up_to);
  EventPage page;
  page.up_to = up_to;
  size_t bytes = 0;
  for (;;) {
    QANAT_ASSIGN_OR_RETURN(bool row, query.step());
    if (!row) return page;
    const bool full = static_cast<int64_t>(page.events.size()) >= limit || bytes > kEventPageBytes;
    if (full && query.integer(3) != page.events.back().item.mod_revision) {
      page.up_to = page.events.back().item.mod_revision;
      return page;
    }
    page.events.push_back({query.integer(6) != 0, read_row(query)});
    bytes += page.events.back().item.value.size();
  }
}

Result<std::unique_ptr<Connection>> ReaderPool::take() {
  {
    MutexLock lock(mutex_);
    while (idle_.empty() && opened_ >= limit_) returned_.wait(mutex_);
    if (!idle_.empty()) {
      auto connection = std::move(idle_.back());
      idle_.pop_back();
      return connection;
    }
    ++opened_;
  }
  auto connection = Connection::open(vfs_, path_, true);
  if (!connection.ok()) give_back(nullptr);
  return connection;
}

void ReaderPool::give_back(std::unique_ptr<Connection> connection) {
  MutexLock lock(mutex_);
  if (connection) {
    idle_.push_back(std::move(connection));
  } else {
    --opened_;
  }
  returned_.notify_one();
}

Status ReaderPool::read(const std::function<Status(Connection&)>& read) {
  QANAT_ASSIGN_OR_RETURN(auto connection, take());
  Status status = connection->run("BEGIN");
  if (status.ok()) status = read(*connection);
  Status ended = connection->run("COMMIT");
  // A connection in an unknown state is dropped, never lent again.
  give_back(ended.ok() ? std::move(connection) : nullptr);
  return status.ok() ? ended : status;
}

}  // namespace qanat::meta
