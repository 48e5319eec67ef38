// Object stores: immutable bytes under keys.
//
// What is written here is found through meta: a key is referred to only after
// ObjectWriter::finish() returned OK, so an object that was not finished is garbage, never data.
// Correctness depends neither on list() nor on a store's conditional writes: keys are unique (they
// hold a random id).
//
// Keys are 1..1,024 bytes of [A-Za-z0-9_.=-] and '/', without empty, "." or ".." parts, and no key
// is a folder of another.
//
// Durability. After finish() == OK the object survives kill -9 and power loss, whole, and its bytes
// never change. Before, after an error, or after a crash: it may be absent, or be there in part
// until it is removed (see list()); create() of the same key may then fail.
//
// Full disk or quota. create(), append() and finish() return kResourceExhausted, with a hint,
// already when the space held in reserve is reached; read, size, list and remove go on working, and
// so do writers that may use the reserve (for what ends work under way, or removes something),
// until it is nearly gone.
//
// Where an error comes from. kNotFound is an object that is not there, never a bucket; what only
// the operator of the store can mend (keys, rights, a missing bucket) is kFailedPrecondition with a
// hint; a store that does not answer in time is kUnavailable or kDeadlineExceeded.
//
// Threads. An ObjectStore may be used from any thread at once. An ObjectWriter is used by one
// thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "qanat/base/status.h"

namespace qanat::object {

constexpr size_t kMaxKeyBytes = 1024;
// kInvalidArgument unless `key` is a key as described above.
Status check_key(std::string_view key);

// An object being written. Destroyed before finish(), or after any error, it removes what it wrote
// (best effort).
class ObjectWriter {
 public:
  virtual ~ObjectWriter() = default;

  // Any number of bytes; may buffer. After an error the object is lost: only the destructor may
  // follow.
  virtual Status append(std::string_view bytes) = 0;
  // Makes the object durable and readable. Once. kAlreadyExists as for create(), from stores that
  // find out only now.
  virtual Status finish() = 0;
  // Gives up now. Nothing may follow but the destructor.
  virtual void abort() = 0;
  // Bytes appended so far.
  virtual int64_t size() const = 0;
};

struct ObjectInfo {
  std::string key;
  int64_t size = 0;
};

class PresignedUrls;

class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  struct CreateOptions {
    bool may_use_reserve = false;
  };
  // Begins an object. kAlreadyExists: the key has an object, finished or not. Remote stores say so
  // in finish(), and only of finished ones; not all of them can.
  virtual Result<std::unique_ptr<ObjectWriter>> create(std::string_view key,
                                                       CreateOptions options) = 0;
  Result<std::unique_ptr<ObjectWriter>> create(std::string_view key) {
    return create(key, CreateOptions());
  }
  // create, append and finish in one call.
  Status write(std::string_view key, std::string_view bytes);

  // The bytes of [offset, offset + length). kNotFound: no such object. kDataLoss: the object ends
  // before the range does. The bytes are not verified here: readers check them against their hash.
  // `length` is what one caller can hold; readers ask for bounded pieces.
  virtual Result<std::string> read(std::string_view key, int64_t offset, int64_t length) const = 0;
  virtual Result<int64_t> size(std::string_view key) const = 0;

  // OK also if there is no such object. The removal is durable at some later time only; it may come
  // back after power loss.
  virtual Status remove(std::string_view key) = 0;

  // Calls `each` for every object whose key begins with `prefix`, ascending bytewise; of a local
  // folder also for unfinished ones. Stops at the first error of `each` and returns it. Objects
  // that come or go meanwhile may be seen or not. kPermissionDenied: this installation may not
  // list; everything else works without.
  using Visitor = std::function<Status(const ObjectInfo&)>;
  virtual Status list(std::string_view prefix, const Visitor& each) const = 0;

  // For a person: what this store is and can do, e.g. "local folder /var/lib/qanat/objects (fsync
  // on finish)".
  virtual std::string describe() const = 0;

  // For a server that stops: calls that wait for a store that does not answer end soon, they and
  // all later ones with kCancelled. A local store has nothing to wait for.
  virtual void cancel() {}

  // Presigned requests, if this store has them (presigned_urls.h); owned by the store.
  virtual PresignedUrls* presigned_urls() { return nullptr; }
};

}  // namespace qanat::object
