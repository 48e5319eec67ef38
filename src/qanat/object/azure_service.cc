#include "qanat/object/azure_service.h"

#include <algorithm>
#include <cstdlib>

#include "qanat/base/bytes.h"
#include "qanat/base/string.h"
#include "qanat/net/digest.h"
#include "qanat/net/http_date.h"
#include "qanat/object/xml.h"

namespace qanat::object {
namespace {

constexpr const char* kVersion = "2021-12-02";
constexpr std::string_view kWriteIdHeader = "x-ms-meta-qanatwrite";
constexpr int64_t kMaxRangeWithMd5 = 4 << 20;
constexpr int kHurriedAttempts = 2;
constexpr uint64_t kMaxListBytes = 16 << 20;
constexpr int64_t kSkewWorthSaying = 5 * 60'000;
constexpr int64_t kGrantStartsEarlier = 5 * 60'000;  // for clocks that differ

// All ids of a blob's blocks must have the same length.
std::string block_id(std::string_view upload, int number) {
  std::string digits = std::to_string(number);
  digits.insert(0, 6 - std::min<size_t>(digits.size(), 6), '0');
  return to_base64(str_cat(upload, digits));
}

void set_body(StoreRequest& request, std::string_view bytes) {
  request.body = bytes;
  request.headers.set("Content-MD5", to_base64(net::md5(bytes)));
}

// Of an answer to written bytes, or to read ones. An answer need not have one.
Status compare(const StoreAnswer& answer, std::string_view md5) {
  const std::string_view theirs = answer.headers.get("Content-MD5");
  if (theirs.empty() || theirs == md5) return ok_status();
  return data_loss("the store's MD5 of the bytes is another than ours");
}

StoreClient::Check same_md5(const StoreRequest& request) {
  return [md5 = std::string(request.headers.get("Content-MD5"))](const StoreAnswer& answer) {
    return compare(answer, md5);
  };
}

Status check_read(const StoreAnswer& answer, int64_t offset, int64_t length) {
  const auto got = static_cast<int64_t>(answer.body.size());
  if (answer.status == 206) {
    // "bytes 0-9/100"
    const std::string_view text = answer.headers.get("Content-Range");
    const auto [range, total_text] = split_once(text, '/');
    const auto total = parse_i64(total_text);
    if (!total.ok() || *total < offset || got != std::min(length, *total - offset) ||
        range != str_cat("bytes ", offset, "-", offset + got - 1)) {
      return data_loss(str_cat("the store answers with ", quoted(text.substr(0, 100)), " (", got,
                               " came) to a read of ", length, " bytes at ", offset));
    }
  } else if (offset != 0) {
    return data_loss("the store does not read ranges");
  }
  if (answer.headers.get("Content-MD5").empty()) return ok_status();
  return compare(answer, to_base64(net::md5(answer.body)));
}

bool is_one_of(std::string_view code, std::initializer_list<std::string_view> codes) {
  return std::find(codes.begin(), codes.end(), code) != codes.end();
}

std::string what_it_said(const StoreAnswer& answer, std::string_view code) {
  std::string out = str_cat("Azure answers ", answer.status);
  if (!code.empty()) str_append(out, " ", code.substr(0, 100));
  const auto body = parse_xml(answer.body);
  if (body.ok() && body->name == "Error") {
    // The first line; what follows are ids of the request.
    const std::string_view message = split_once(body->child_text("Message"), '\n').first;
    if (!message.empty()) str_append(out, ": ", trim(message).substr(0, 300));
  }
  return out;
}

}  // namespace

Result<ListPage> parse_azure_list(std::string_view body) {
  QANAT_ASSIGN_OR_RETURN(const XmlElement root, parse_xml(body));
  const XmlElement* blobs = root.child("Blobs");
  if (root.name != "EnumerationResults" || blobs == nullptr) {
    return data_loss("the store's list is none");
  }
  ListPage page;
  for (const XmlElement& blob : blobs->children) {
    if (blob.name != "Blob") continue;
    const XmlElement* name = blob.child("Name");
    const XmlElement* properties = blob.child("Properties");
    if (name == nullptr || name->text.empty() || properties == nullptr) {
      return data_loss("the store's list has an entry without name or size");
    }
    // Accounts with a hierarchical namespace list their folders, too.
    if (properties->child_text("ResourceType") == "directory") continue;
    const auto size = parse_u64(properties->child_text("Content-Length"));
    if (!size.ok() || *size > INT64_MAX) {
      return data_loss("the store's list has an entry without name or size");
    }
    page.objects.push_back({name->text, static_cast<int64_t>(*size)});
  }
  if (const XmlElement* next = root.child("NextMarker")) page.next = next->text;
  return page;
}

AzureService::AzureService(AzureOptions options, AzureCredentials credentials,
                           net::ClientOptions client, RetryOptions retry, Clock& clock)
    : options_(std::move(options)),
      credentials_(std::move(credentials)),
      clock_(clock),
      client_(std::move(client), retry, *this) {}

StoreRequest AzureService::request(net::Method method, std::string_view key,
                                   std::string_view query) const {
  StoreRequest request;
  request.method = method;
  request.url = options_.endpoint;
  if (request.url.path == "/") request.url.path.clear();
  str_append(request.url.path, "/", options_.container);
  if (!key.empty()) str_append(request.url.path, "/", net::encode_path(key));
  request.url.query_text = query;
  request.headers.set("x-ms-version", kVersion);
  return request;
}

Status AzureService::sign(const StoreRequest& request, net::Url& url, net::Headers& headers,
                          std::string& /*key*/) {
  if (credentials_.key) {
    return net::sign_azure_request(*credentials_.key, clock_.wall_ms(), request.method, url,
                                   request.body.size(), headers);
  }
  str_append(url.query_text, url.query_text.empty() ? "" : "&", credentials_.sas);
  return ok_status();
}

Refusal AzureService::judge(const StoreRequest& request, const StoreAnswer& answer) {
  using Kind = Refusal::Kind;
  const std::string_view code = answer.headers.get("x-ms-error-code");
  const std::string said = what_it_said(answer, code);
  if (answer.status == 507 || code.find("Quota") != std::string_view::npos) {
    return {Kind::kFinal,
            resource_exhausted(said, "raise the limit, or delete what is not needed")};
  }
  if (answer.status == 429 || answer.status == 503) {
    return {Kind::kThrottled, unavailable(said, "the store is busy; try again later")};
  }
  if (answer.status == 408 || answer.status >= 500 ||
      is_one_of(code, {"Md5Mismatch", "OperationTimedOut", "ContainerBeingDeleted"})) {
    return {Kind::kAgain, unavailable(said, "try again later")};
  }
  return {Kind::kFinal, advice(request, answer, code)};
}

Status AzureService::advice(const StoreRequest& request, const StoreAnswer& answer,
                            std::string_view code) const {
  const std::string said = what_it_said(answer, code);
  if (answer.status == 412 || code == "BlobAlreadyExists") {
    return already_exists("the key has an object");
  }
  if (answer.status == 416) return data_loss("the object ends before the range that was read");
  if (code == "ContainerNotFound") {
    return failed_precondition(
        said, str_cat("create the container ", options_.container, " at ",
                      options_.endpoint.authority(), ", or correct the store's URL"));
  }
  if (answer.status == 404) return not_found("no such object");
  const auto theirs = net::parse_http_date(answer.headers.get("Date"));
  const int64_t skew = theirs.ok() ? clock_.wall_ms() - *theirs : 0;
  if (answer.status == 403 && std::abs(skew) > kSkewWorthSaying) {
    return failed_precondition(
        str_cat(said, " (this machine's clock is ", format_duration(std::abs(skew)),
                skew < 0 ? " behind" : " ahead of", " the store's)"),
        "set this machine's clock: signatures hold for 15 minutes");
  }
  if (answer.status == 401 || answer.status == 403) {
    return failed_precondition(
        said, credentials_.key
                  ? str_cat("check the key of the storage account ", options_.account,
                            " (AZURE_STORAGE_KEY or AZURE_STORAGE_CONNECTION_STRING)")
                  : str_cat("the shared access signature must be in force and allow to read, "
                            "create, write, delete and list in the container ",
                            options_.container));
  }
  if (answer.status == 413) return too_large(said);
  return failed_precondition(str_cat(said, " (", net::method_name(request.method), " at ",
                                     options_.endpoint.authority(), ")"),
                             "check that the store's URL names a blob endpoint");
}

Status AzureService::put(const std::string& key, std::string_view bytes, const WriteId& id) {
  StoreRequest put = request(net::Method::kPut, key);
  set_body(put, bytes);
  put.headers.set("x-ms-blob-type", "BlockBlob");
  put.headers.set("If-None-Match", "*");
  put.headers.set(std::string(kWriteIdHeader), id);
  bool unsure = false;
  const Status status = client_.run(put, same_md5(put), &unsure).status();
  if (status.code() != Code::kAlreadyExists || !unsure) return status;
  QANAT_ASSIGN_OR_RETURN(const bool equal, has_bytes(key, bytes));
  if (equal) return ok_status();
  QANAT_ASSIGN_OR_RETURN(const bool mine, is_mine(key, id, static_cast<int64_t>(bytes.size())));
  return mine ? data_loss("the store kept other bytes than were sent to it") : status;
}

Result<bool> AzureService::has_bytes(const std::string& key, std::string_view bytes) {
  const auto whole = size(key);
  if (!whole.ok()) return whole.status();
  if (*whole != static_cast<int64_t>(bytes.size())) return false;
  if (bytes.empty()) return true;
  QANAT_ASSIGN_OR_RETURN(const std::string found, get(key, 0, *whole));
  return found == bytes;
}

Result<bool> AzureService::is_mine(const std::string& key, const WriteId& id, int64_t size) {
  const auto answer = client_.run(request(net::Method::kHead, key));
  if (answer.code() == Code::kNotFound) return false;
  if (!answer.ok()) return answer.status();
  return answer->headers.get(kWriteIdHeader) == id &&
         answer->headers.get("Content-Length") == std::to_string(size);
}

// There is nothing to begin: blocks belong together by their ids.
Result<std::string> AzureService::begin_upload(const std::string& /*key*/, const WriteId& id) {
  return id;
}

Result<UploadedPart> AzureService::put_part(const std::string& key, const std::string& upload,
                                            int number, std::string_view bytes,
                                            const std::shared_ptr<net::CancelSignal>& cancel) {
  const std::string id = block_id(upload, number);
  StoreRequest put =
      request(net::Method::kPut, key, str_cat("comp=block&blockid=", net::encode_path_segment(id)));
  set_body(put, bytes);
  put.cancel = cancel;
  QANAT_RETURN_IF_ERROR(client_.run(put, same_md5(put)).status());
  return UploadedPart{id, "", static_cast<int64_t>(bytes.size())};
}

Status AzureService::complete_upload(const std::string& key, const std::string& /*upload*/,
                                     const std::vector<UploadedPart>& parts, const WriteId& id) {
  std::string body = "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>";
  int64_t size = 0;
  for (const UploadedPart& part : parts) {
    str_append(body, "<Latest>", part.tag, "</Latest>");
    size += part.size;
  }
  body += "</BlockList>";
  StoreRequest put = request(net::Method::kPut, key, "comp=blocklist");
  set_body(put, body);
  put.headers.set("Content-Type", "application/xml");
  put.headers.set("If-None-Match", "*");
  put.headers.set(std::string(kWriteIdHeader), id);
  bool unsure = false;
  const Status status = client_.run(put, {}, &unsure).status();
  if (status.code() != Code::kAlreadyExists || !unsure) return status;
  QANAT_ASSIGN_OR_RETURN(const bool mine, is_mine(key, id, size));
  return mine ? ok_status() : status;
}

// Blocks that are in no list vanish after a week; no request takes them away earlier.
void AzureService::abort_upload(const std::string& /*key*/, const std::string& /*upload*/) {}

Result<std::string> AzureService::get(const std::string& key, int64_t offset, int64_t length) {
  StoreRequest get = request(net::Method::kGet, key);
  get.headers.set("Range", str_cat("bytes=", offset, "-", offset + length - 1));
  if (length <= kMaxRangeWithMd5) get.headers.set("x-ms-range-get-content-md5", "true");
  get.max_answer_bytes = static_cast<uint64_t>(length);
  QANAT_ASSIGN_OR_RETURN(StoreAnswer answer, client_.run(get, [&](const StoreAnswer& given) {
    return check_read(given, offset, length);
  }));
  if (static_cast<int64_t>(answer.body.size()) < length) {
    return data_loss(str_cat("it ends at ", offset + static_cast<int64_t>(answer.body.size()),
                             ", before the end of a read of ", length, " bytes at ", offset));
  }
  return std::move(answer.body);
}

Result<int64_t> AzureService::size(const std::string& key) {
  QANAT_ASSIGN_OR_RETURN(const StoreAnswer answer, client_.run(request(net::Method::kHead, key)));
  const auto size = parse_i64(answer.headers.get("Content-Length"));
  if (!size.ok() || *size < 0) return data_loss("the store does not say how long an object is");
  return *size;
}

Status AzureService::remove(const std::string& key, bool hurried) {
  StoreRequest remove = request(net::Method::kDelete, key);
  remove.headers.set("x-ms-delete-snapshots", "include");
  if (hurried) remove.max_attempts = kHurriedAttempts;
  const Status status = client_.run(remove).status();
  return status.code() == Code::kNotFound ? ok_status() : status;
}

Result<ListPage> AzureService::list(const std::string& prefix, const std::string& from) {
  // Fewer than the 5,000 that are usual: an entry has some 30 elements.
  std::string query = "restype=container&comp=list&maxresults=1000";
  if (!prefix.empty()) str_append(query, "&prefix=", net::encode_path_segment(prefix));
  if (!from.empty()) str_append(query, "&marker=", net::encode_path_segment(from));
  StoreRequest get = request(net::Method::kGet, "", query);
  get.max_answer_bytes = kMaxListBytes;
  ListPage page;
  QANAT_RETURN_IF_ERROR(client_
                            .run(get,
                                 [&](const StoreAnswer& answer) -> Status {
                                   QANAT_ASSIGN_OR_RETURN(page, parse_azure_list(answer.body));
                                   return ok_status();
                                 })
                            .status());
  return page;
}

Result<std::string> AzureService::granted(const std::string& key, std::string_view permissions,
                                          int64_t now, std::chrono::seconds lifetime) const {
  if (!credentials_.key) {
    return failed_precondition(
        "a shared access signature cannot be used to make another",
        "give the server the account's key (AZURE_STORAGE_KEY) to have presigned requests");
  }
  net::Url url = request(net::Method::kGet, key).url;
  url.query_text = net::azure_sas_query(
      *credentials_.key,
      {options_.container, key, std::string(permissions), now - kGrantStartsEarlier,
       now + lifetime.count() * 1000, options_.endpoint.scheme == "https"});
  return url.to_string();
}

Result<PresignedRequest> AzureService::presign_read(const std::string& key, int64_t offset,
                                                    int64_t length, std::chrono::seconds lifetime) {
  const int64_t now = clock_.wall_ms();
  QANAT_ASSIGN_OR_RETURN(std::string url, granted(key, "r", now, lifetime));
  return PresignedRequest{"GET",
                          std::move(url),
                          {{"Range", str_cat("bytes=", offset, "-", offset + length - 1)}},
                          now + lifetime.count() * 1000};
}

Result<PresignedRequest> AzureService::presign_write(const std::string& key, int64_t size,
                                                     std::chrono::seconds lifetime) {
  const int64_t now = clock_.wall_ms();
  QANAT_ASSIGN_OR_RETURN(std::string url, granted(key, "cw", now, lifetime));
  return PresignedRequest{
      "PUT",
      std::move(url),
      {{"x-ms-blob-type", "BlockBlob"}, {"Content-Length", std::to_string(size)}},
      now + lifetime.count() * 1000};
}

std::string AzureService::describe() const {
  return str_cat("Azure Blob Storage ", options_.shown, " at ", options_.endpoint.authority());
}

}  // namespace qanat::object
