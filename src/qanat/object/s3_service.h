// Amazon S3 and what speaks its language: MinIO, Ceph's gateway, Google Cloud Storage's XML API
// with HMAC keys. After "Amazon S3 API Reference" (API version 2006-03-01).
//
// Bytes are checked at both ends. Written: the signature covers their SHA-256, which the store
// compares; x-amz-checksum-sha256 makes AWS keep it with the object (with checksum=md5, Content-MD5
// instead); and the checksum or ETag that is answered is compared here. Read: the length, the
// range, and, where the range is the whole object, the store's SHA-256 or the ETag if it is an MD5.
//
// One object per key: writes are conditional (If-None-Match: *) unless the store says that it knows
// no such thing.
//
// The right to list is not needed. Without it a store says 403 of an object that is not there, as
// of one that may not be read: once anything was read, the first is what it is taken for.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "qanat/base/clock.h"
#include "qanat/net/http_client.h"
#include "qanat/object/blob_service.h"
#include "qanat/object/credentials.h"
#include "qanat/object/s3_answers.h"
#include "qanat/object/store_client.h"
#include "qanat/object/store_url.h"

namespace qanat::object {

struct S3Options {
  net::Url endpoint;  // path "/"; the bucket's name is put before the host unless path_style
  std::string bucket;
  std::string region;
  bool path_style = false;
  bool conditional_writes = true;
  StoreUrl::Checksum checksum = StoreUrl::Checksum::kSha256;
  std::string shown;  // the store's URL, for messages
  bool is_google = false;
};

class S3Service : public BlobService, private StoreDialect {
 public:
  // Borrows `clock`.
  S3Service(S3Options options, std::unique_ptr<AwsCredentials> credentials,
            net::ClientOptions client, RetryOptions retry, Clock& clock);

  Status put(const std::string& key, std::string_view bytes, const WriteId& id) override;
  Result<std::string> begin_upload(const std::string& key, const WriteId& id) override;
  Result<UploadedPart> put_part(const std::string& key, const std::string& upload, int number,
                                std::string_view bytes,
                                const std::shared_ptr<net::CancelSignal>& cancel) override;
  Status complete_upload(const std::string& key, const std::string& upload,
                         const std::vector<UploadedPart>& parts, const WriteId& id) override;
  void abort_upload(const std::string& key, const std::string& upload) override;
  int max_parts() const override { return 10'000; }
  Result<std::string> get(const std::string& key, int64_t offset, int64_t length) override;
  Result<int64_t> size(const std::string& key) override;
  Status remove(const std::string& key, bool hurried) override;
  Result<ListPage> list(const std::string& prefix, const std::string& from) override;
  void cancel() override { client_.cancel(); }
  bool limits_range() const override { return true; }
  bool limits_size() const override { return true; }
  Result<PresignedRequest> presign_read(const std::string& key, int64_t offset, int64_t length,
                                        std::chrono::seconds lifetime) override;
  Result<PresignedRequest> presign_write(const std::string& key, int64_t size,
                                         std::chrono::seconds lifetime) override;
  std::string describe() const override;

  const StoreClient& client() const { return client_; }

 private:
  Status sign(const StoreRequest& request, net::Url& url, net::Headers& headers,
              std::string& key) override;
  Refusal judge(const StoreRequest& request, const StoreAnswer& answer) override;
  bool renew_key(const std::string& refused) override;

  StoreRequest request(net::Method method, std::string_view key, std::string_view query = {}) const;
  void set_body(StoreRequest& request, std::string_view bytes) const;
  // Of an answer to written bytes.
  Status check_written(const StoreRequest& request, const StoreAnswer& answer) const;
  // A GET or HEAD of an object; kNotFound if it is not there.
  Result<StoreAnswer> read(StoreRequest& request, const std::string& key,
                           const StoreClient::Check& check = {});
  // What it means that reading `key` was refused with `refused`: to who may not list, S3 says the
  // same of what is not there.
  Status why_forbidden(const std::string& key, const Status& refused);
  // After an unsure answer: whether what is under the key now is what this write was to leave
  // there.
  Result<bool> has_bytes(const std::string& key, std::string_view bytes);
  Result<bool> is_mine(const std::string& key, const WriteId& id, int64_t size);
  Status advice(const StoreRequest& request, const StoreAnswer& answer, const S3Error& error) const;
  Result<PresignedRequest> presigned(net::Method method, const std::string& key,
                                     std::pair<std::string, std::string> header,
                                     std::chrono::seconds lifetime);

  const S3Options options_;
  const std::unique_ptr<AwsCredentials> credentials_;
  Clock& clock_;
  const net::Url base_;  // with the bucket
  std::atomic<bool> conditional_;
  std::atomic<int> conditions_refused_{0};
  std::atomic<bool> has_read_{false};  // an object was read: the key has the right to
  StoreClient client_;
};

}  // namespace qanat::object
