// What S3 and Azure Blob Storage have in common, request by request: the part of a remote store
// that differs from one kind to the next. RemoteObjectStore makes an ObjectStore of it.
//
// Keys are whole (with the store's prefix). Every call tries again by itself until it succeeds,
// cannot, or runs out of time (store_client.h), and says what an ObjectStore says (object_store.h).
// Thread safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/net/stream.h"
#include "qanat/object/object_store.h"
#include "qanat/object/presigned_urls.h"

namespace qanat::object {

// A random name for one write, stored with the object: by it a writer whose request timed out finds
// out whether the object that is there now is its own.
using WriteId = std::string;

struct UploadedPart {
  std::string tag;       // what the store calls this part's bytes
  std::string checksum;  // SHA-256 in base64, if the store keeps it; "" otherwise
  int64_t size = 0;
};

struct ListPage {
  std::vector<ObjectInfo> objects;  // as the store sorts them
  std::string next;                 // where the next page begins; "" if this is the last
};

class BlobService {
 public:
  virtual ~BlobService() = default;

  // In one request. kAlreadyExists where the store can tell.
  virtual Status put(const std::string& key, std::string_view bytes, const WriteId& id) = 0;

  // In parts, numbered from 1, in any order and in parallel. Nothing is visible before complete().
  // `cancel` gives up a part that is on its way; it may be null.
  virtual Result<std::string> begin_upload(const std::string& key, const WriteId& id) = 0;
  virtual Result<UploadedPart> put_part(const std::string& key, const std::string& upload,
                                        int number, std::string_view bytes,
                                        const std::shared_ptr<net::CancelSignal>& cancel) = 0;
  virtual Status complete_upload(const std::string& key, const std::string& upload,
                                 const std::vector<UploadedPart>& parts, const WriteId& id) = 0;
  // Best effort, few attempts.
  virtual void abort_upload(const std::string& key, const std::string& upload) = 0;
  virtual int max_parts() const = 0;

  // length > 0. kDataLoss: the object ends before the range does.
  virtual Result<std::string> get(const std::string& key, int64_t offset, int64_t length) = 0;
  virtual Result<int64_t> size(const std::string& key) = 0;
  // OK also if there is none. `hurried`: few attempts, for what is cleaned up on the way out.
  virtual Status remove(const std::string& key, bool hurried) = 0;
  virtual Result<ListPage> list(const std::string& prefix, const std::string& from) = 0;

  // As ObjectStore::cancel().
  virtual void cancel() = 0;

  virtual bool limits_range() const = 0;
  virtual bool limits_size() const = 0;
  virtual Result<PresignedRequest> presign_read(const std::string& key, int64_t offset,
                                                int64_t length, std::chrono::seconds lifetime) = 0;
  virtual Result<PresignedRequest> presign_write(const std::string& key, int64_t size,
                                                 std::chrono::seconds lifetime) = 0;

  virtual std::string describe() const = 0;
};

}  // namespace qanat::object
