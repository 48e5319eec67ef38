// Azure Blob Storage: block blobs in one container. After Microsoft's "Blob Storage REST API",
// version 2021-12-02, with Shared Key or a shared access signature.
//
// Bytes are checked at both ends: each request that carries bytes carries their MD5, which the
// store compares and answers with; ranges of up to 4 MiB, the most for which Azure does so, are
// read with their MD5, and whole blobs with theirs. Uploads in parts are blocks and a block list;
// what is given up is forgotten by Azure after a week.
//
// Presigned requests cannot be limited to a range or a size here.
#pragma once

#include <memory>
#include <string>

#include "qanat/base/clock.h"
#include "qanat/net/http_client.h"
#include "qanat/object/blob_service.h"
#include "qanat/object/credentials.h"
#include "qanat/object/store_client.h"

namespace qanat::object {

struct AzureOptions {
  net::Url endpoint;  // https://ACCOUNT.blob.core.windows.net/, or with the account as its path
  std::string account;
  std::string container;
  std::string shown;  // the store's URL, for messages
};

class AzureService : public BlobService, private StoreDialect {
 public:
  // Borrows `clock`.
  AzureService(AzureOptions options, AzureCredentials credentials, net::ClientOptions client,
               RetryOptions retry, Clock& clock);

  Status put(const std::string& key, std::string_view bytes, const WriteId& id) override;
  Result<std::string> begin_upload(const std::string& key, const WriteId& id) override;
  Result<UploadedPart> put_part(const std::string& key, const std::string& upload, int number,
                                std::string_view bytes,
                                const std::shared_ptr<net::CancelSignal>& cancel) override;
  Status complete_upload(const std::string& key, const std::string& upload,
                         const std::vector<UploadedPart>& parts, const WriteId& id) override;
  void abort_upload(const std::string& key, const std::string& upload) override;
  int max_parts() const override { return 50'000; }
  Result<std::string> get(const std::string& key, int64_t offset, int64_t length) override;
  Result<int64_t> size(const std::string& key) override;
  Status remove(const std::string& key, bool hurried) override;
  Result<ListPage> list(const std::string& prefix, const std::string& from) override;
  void cancel() override { client_.cancel(); }
  bool limits_range() const override { return false; }
  bool limits_size() const override { return false; }
  Result<PresignedRequest> presign_read(const std::string& key, int64_t offset, int64_t length,
                                        std::chrono::seconds lifetime) override;
  Result<PresignedRequest> presign_write(const std::string& key, int64_t size,
                                         std::chrono::seconds lifetime) override;
  std::string describe() const override;

 private:
  Status sign(const StoreRequest& request, net::Url& url, net::Headers& headers,
              std::string& key) override;
  Refusal judge(const StoreRequest& request, const StoreAnswer& answer) override;
  bool renew_key(const std::string& /*refused*/) override { return false; }

  StoreRequest request(net::Method method, std::string_view key, std::string_view query = {}) const;
  Status advice(const StoreRequest& request, const StoreAnswer& answer,
                std::string_view code) const;
  // After an unsure answer: whether the blob under `key` is the one that this write made.
  Result<bool> is_mine(const std::string& key, const WriteId& id, int64_t size);
  Result<bool> has_bytes(const std::string& key, std::string_view bytes);
  Result<std::string> granted(const std::string& key, std::string_view permissions, int64_t now,
                              std::chrono::seconds lifetime) const;

  const AzureOptions options_;
  const AzureCredentials credentials_;
  Clock& clock_;
  StoreClient client_;
};

// "EnumerationResults" of List Blobs. kDataLoss if it is anything else.
Result<ListPage> parse_azure_list(std::string_view body);

}  // namespace qanat::object
