// Metadata: ordered keys with revisions, transactions, watches and leases.
//
// The interface is etcd v3's, narrowed to what Qanat uses, so that the embedded store
// (sqlite_store.h) and an etcd cluster are interchangeable. What is kept here is small and bounded:
// nothing per file or per datum.
//
// Revisions. The store has one counter, 1 when empty. Every transaction that changes at least one
// key takes the next number, and all its changes carry it. Reads may name an older revision until
// it is compacted; then they get Code::kGone.
//
// Durability. A commit() that returns OK is durable: it survives kill -9 and power loss, whole. One
// that returns kUnavailable may or may not have happened (the answer was lost); the caller reads
// again. Any other error: it did not happen, nothing is half applied.
//
// Isolation. Transactions are serialisable in revision order; a range() without a revision sees
// every transaction acknowledged before it was called, and its items are of one revision.
//
// Threads. All methods may be called from any thread; callbacks come from a thread of the store's.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::meta {

// Limits every implementation shares (etcd's defaults).
constexpr size_t kMaxOperations = 64;  // compares, then and otherwise: each
constexpr size_t kMaxKeyBytes = 2048;  // a key is 1..this many bytes of any value but NUL
constexpr size_t kMaxTransactionBytes =
    1536 << 10;  // keys and values of the compares and of the longer branch

struct KeyValue {
  std::string key;
  std::string value;
  int64_t create_revision = 0;  // of the put that created the key (since it was last deleted)
  int64_t mod_revision = 0;     // of the last put
  int64_t version = 0;          // puts since creation, beginning with 1
  int64_t lease = 0;            // 0: none
};

// Keys from `begin` (included) to `end` (excluded), bytewise. An empty `end` has no upper bound.
struct KeyRange {
  std::string begin;
  std::string end;

  static KeyRange single(std::string_view key);
  static KeyRange prefix(std::string_view prefix);  // "" is every key
  static KeyRange between(std::string_view begin, std::string_view end);
  bool contains(std::string_view key) const;
};
// The first key after all keys with this prefix; "" when there is none (all bytes are 0xff, or the
// prefix is empty).
std::string prefix_end(std::string_view prefix);
// The first key after `key`.
std::string key_after(std::string_view key);

struct RangeOptions {
  int64_t limit = 0;     // 0: no limit
  int64_t revision = 0;  // 0: the current one
  bool descending = false;
  bool keys_only = false;  // leaves `value` empty
  bool count = false;      // fills RangeResult::count (costs a scan of the range's keys)
};

struct RangeResult {
  std::vector<KeyValue> items;
  bool more = false;     // the limit cut the result; go on from key_after(last key), at `revision`
  int64_t count = 0;     // all keys of the range, whatever the limit; only with RangeOptions::count
  int64_t revision = 0;  // the revision that the items are of
};

struct Compare {
  enum class Target { kCreateRevision, kModRevision, kVersion, kLease, kValue };
  enum class Relation { kEqual, kNotEqual, kLess, kGreater };
  std::string key;
  Target target = Target::kModRevision;
  Relation relation = Relation::kEqual;
  int64_t number = 0;  // for all targets but kValue; an absent key has 0 for each
  std::string value;   // for kValue; never true of an absent key, except kNotEqual
};
Compare key_absent(std::string_view key);
Compare key_present(std::string_view key);
Compare mod_revision_is(std::string_view key, int64_t revision);  // 0: absent
Compare create_revision_is(std::string_view key, int64_t revision);
Compare value_is(std::string_view key, std::string_view value);

struct Operation {
  enum class Kind { kPut, kDelete, kRange };
  Kind kind = Kind::kPut;
  KeyRange range;        // kPut: begin is the key
  std::string value;     // kPut
  int64_t lease = 0;     // kPut: the key is deleted when this lease ends. 0 detaches
  RangeOptions options;  // kRange: limit, descending, keys_only
};
Operation put(std::string_view key, std::string value, int64_t lease = 0);
Operation erase(std::string_view key);
Operation erase_range(KeyRange range);
Operation get(std::string_view key);
Operation get_range(KeyRange range, RangeOptions options = {});

// If every compare holds, `then` is executed in order, else `otherwise`. In one branch a key may be
// changed once only (two puts of a key, or a put of a key that is also erased, are
// kInvalidArgument). Operations see the effects of those before them.
struct Transaction {
  std::vector<Compare> compares;
  std::vector<Operation> then;
  std::vector<Operation> otherwise;
  // May use the disk space that is held in reserve: for transactions that make room, or end what is
  // under way. Without it a transaction with a put is refused (kResourceExhausted) when the disk is
  // nearly full; erases alone are always let through.
  bool may_use_reserve = false;

  // A builder, so that a transaction reads as a sentence: Transaction().when(key_absent(k)).put(k,
  // v).
  Transaction& when(Compare compare);
  Transaction& put(std::string_view key, std::string value, int64_t lease = 0);
  Transaction& erase(std::string_view key);
  Transaction& add(Operation operation);
  // Everything of `other`, after what is here.
  Transaction& add(Transaction other);
  Transaction& or_else(Operation operation);
};

// What every implementation checks first: the limits above, and that no key is changed twice.
Status check_transaction(const Transaction& transaction);
// Whether a compare holds; `item` is nullptr for an absent key.
bool holds(const Compare& compare, const KeyValue* item);

struct OperationResult {
  RangeResult range;    // kRange
  int64_t deleted = 0;  // kDelete: keys that were there
};

struct TransactionResult {
  bool succeeded = false;  // all compares held
  int64_t revision = 0;    // of this transaction if it changed anything, else the store's
  std::vector<OperationResult> results;  // one for each operation of the branch taken
};

struct Event {
  bool deleted = false;
  KeyValue item;  // deleted: only key and mod_revision (the revision of the deletion)
};

// What a watch is told. In revision order, all events of a revision in one batch (in any order),
// none twice, none left out.
struct WatchBatch {
  Status
      status;  // not OK: the last call. kGone: compacted, list again; kCancelled: the store closes
  int64_t revision = 0;  // everything up to it has been told
  std::vector<Event> events;
};
// Must be quick and must not call the store's commit(): it runs on the thread that serves all
// watches. May destroy its own Watch.
using WatchCallback = std::function<void(const WatchBatch&)>;

// Destroying it ends the watch and waits for a callback in progress (unless it is called from that
// callback).
class Watch {
 public:
  virtual ~Watch() = default;
};

struct LeaseInfo {
  int64_t id = 0;
  int64_t ttl_ms = 0;        // as granted
  int64_t remaining_ms = 0;  // until it ends if it is not kept alive
};

class Store {
 public:
  virtual ~Store() = default;

  // kGone: that revision is compacted. kInvalidArgument: a revision of the future.
  virtual Result<RangeResult> range(const KeyRange& range,
                                    const RangeOptions& options = {}) const = 0;

  // See Durability above. kInvalidArgument / kTooLarge: over a limit. kNotFound: a lease that is
  // not there. Compares that do not hold are no error: see TransactionResult::succeeded.
  virtual Result<TransactionResult> commit(Transaction transaction) = 0;

  // Events of `range` from `from_revision` on (0: from the next one). kGone if that is compacted.
  // The first callback may come before watch() returns.
  virtual Result<std::unique_ptr<Watch>> watch(const KeyRange& range, int64_t from_revision,
                                               WatchCallback callback) = 0;

  // Leases end when they are not kept alive for `ttl_ms`; their keys are then deleted in one or
  // more transactions. A restart of the store starts their time anew, so they never end early.
  virtual Result<int64_t> grant_lease(int64_t ttl_ms) = 0;
  virtual Status keep_alive(int64_t lease) = 0;  // kNotFound: it ended
  virtual Status revoke_lease(int64_t lease) = 0;
  virtual Result<LeaseInfo> lease_info(int64_t lease) const = 0;

  virtual int64_t current_revision() const = 0;
  // Until current_revision() >= revision. kDeadlineExceeded.
  virtual Status wait_revision(int64_t revision, std::chrono::milliseconds timeout) const = 0;

  // One value, or nothing.
  Result<std::optional<KeyValue>> get(std::string_view key, int64_t revision = 0) const;
};

}  // namespace qanat::meta
