#include "qanat/object/s3_service.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "qanat/base/bytes.h"
#include "qanat/base/hash.h"
#include "qanat/base/string.h"
#include "qanat/net/digest.h"
#include "qanat/net/http_date.h"

namespace qanat::object {
namespace {

constexpr std::string_view kWriteIdHeader = "x-amz-meta-qanat-write";
constexpr std::string_view kGoogleWriteIdHeader = "x-goog-meta-qanat-write";
constexpr std::string_view kChecksumHeader = "x-amz-checksum-sha256";
constexpr int kHurriedAttempts = 2;
constexpr uint64_t kMaxListBytes = 8 << 20;
constexpr int64_t kSkewWorthSaying = 5 * 60'000;
constexpr int kMostConditionsRefused = 64;

const std::string& hash_of_nothing() {
  static const std::string hash = sha256("").to_hex();
  return hash;
}

net::Url with_bucket(const S3Options& options) {
  net::Url url = options.endpoint;
  if (options.path_style) {
    url.path = str_cat("/", options.bucket);
  } else {
    url.host = str_cat(options.bucket, ".", url.host);
    url.path = "";
  }
  return url;
}

// An ETag that is the MD5 of the bytes, in hex; "" if it is something else (encrypted by the store,
// or uploaded in parts).
std::string md5_of_tag(const net::Headers& headers) {
  if (headers.get("x-amz-server-side-encryption").starts_with("aws:kms") ||
      headers.has("x-amz-server-side-encryption-customer-algorithm")) {
    return "";
  }
  std::string_view tag = headers.get("ETag");
  if (tag.size() == 34 && tag.front() == '"' && tag.back() == '"') tag = tag.substr(1, 32);
  if (tag.size() != 32 || !from_hex(tag).ok()) return "";
  return to_lower(tag);
}

// Compares bytes with the checksum that the store gives for them, if it gives one.
Status compare(const net::Headers& headers, std::string_view bytes, std::string_view sha256_hex) {
  const std::string_view theirs = headers.get(kChecksumHeader);
  if (!theirs.empty() && theirs.find('-') == std::string_view::npos) {
    const auto digest = from_base64(theirs);
    const std::string ours = sha256_hex.empty() ? sha256(bytes).to_hex() : std::string(sha256_hex);
    if (digest.ok() && to_hex(*digest) == ours) return ok_status();
    return data_loss("the store's SHA-256 of the bytes is another than ours");
  }
  const std::string tag = md5_of_tag(headers);
  if (tag.empty() || tag == to_hex(net::md5(bytes))) return ok_status();
  return data_loss("the store's MD5 of the bytes is another than ours");
}

struct ContentRange {
  int64_t first = 0;
  int64_t last = 0;
  int64_t total = 0;
};

// "bytes 0-9/100"
Result<ContentRange> parse_content_range(std::string_view text) {
  if (text.starts_with("bytes ")) {
    const auto [range, total_text] = split_once(text.substr(6), '/');
    const auto [first_text, last_text] = split_once(range, '-');
    const auto first = parse_i64(first_text);
    const auto last = parse_i64(last_text);
    const auto total = parse_i64(total_text);
    if (first.ok() && last.ok() && total.ok() && *first >= 0 && *first <= *last && *last < *total) {
      return ContentRange{*first, *last, *total};
    }
  }
  return data_loss(str_cat("the store's Content-Range is ", quoted(text.substr(0, 100))));
}

// What arrived as an answer to a read of [offset, offset + length): whole, the right place, the
// right bytes.
Status check_read(const StoreAnswer& answer, int64_t offset, int64_t length) {
  const auto got = static_cast<int64_t>(answer.body.size());
  bool whole = answer.status == 200;
  if (answer.status == 206) {
    QANAT_ASSIGN_OR_RETURN(const ContentRange range,
                           parse_content_range(answer.headers.get("Content-Range")));
    const int64_t expected = std::min(length, range.total - offset);
    if (range.first != offset || range.last - range.first + 1 != got || got != expected) {
      return data_loss(str_cat("the store answers with bytes ", range.first, " to ", range.last,
                               " (", got, " came) to a read of ", length, " bytes at ", offset));
    }
    whole = got == range.total;
  } else if (offset != 0) {
    return data_loss("the store does not read ranges");
  }
  return whole ? compare(answer.headers, answer.body, "") : ok_status();
}

bool is_one_of(std::string_view code, std::initializer_list<std::string_view> codes) {
  return std::find(codes.begin(), codes.end(), code) != codes.end();
}

std::string what_it_said(const StoreAnswer& answer, const S3Error& error) {
  std::string out = str_cat("the object store answers ", answer.status);
  if (!error.code.empty()) str_append(out, " ", error.code.substr(0, 100));
  if (!error.message.empty()) str_append(out, ": ", error.message.substr(0, 300));
  return out;
}

}  // namespace

S3Service::S3Service(S3Options options, std::unique_ptr<AwsCredentials> credentials,
                     net::ClientOptions client, RetryOptions retry, Clock& clock)
    : options_(std::move(options)),
      credentials_(std::move(credentials)),
      clock_(clock),
      base_(with_bucket(options_)),
      conditional_(options_.conditional_writes),
      client_(std::move(client), retry, *this) {}

StoreRequest S3Service::request(net::Method method, std::string_view key,
                                std::string_view query) const {
  StoreRequest request;
  request.method = method;
  request.url = base_;
  if (!key.empty() || request.url.path.empty()) {
    str_append(request.url.path, "/", net::encode_path(key));
  }
  request.url.query_text = query;
  request.body_hash = hash_of_nothing();
  return request;
}

void S3Service::set_body(StoreRequest& request, std::string_view bytes) const {
  const Hash hash = sha256(bytes);
  request.body = bytes;
  request.body_hash = hash.to_hex();
  if (options_.checksum == StoreUrl::Checksum::kSha256) {
    request.headers.set(std::string(kChecksumHeader), to_base64(hash.view()));
  } else if (options_.checksum == StoreUrl::Checksum::kMd5) {
    request.headers.set("Content-MD5", to_base64(net::md5(bytes)));
  }
}

Status S3Service::check_written(const StoreRequest& request, const StoreAnswer& answer) const {
  return compare(answer.headers, request.body, request.body_hash);
}

Status S3Service::sign(const StoreRequest& request, net::Url& url, net::Headers& headers,
                       std::string& key) {
  QANAT_ASSIGN_OR_RETURN(const net::AwsKey found, credentials_->key());
  key = fingerprint(found);
  if (!conditional_) headers.remove("If-None-Match");
  return net::sign_request(found, {options_.region, "s3"}, clock_.wall_ms(), request.method, url,
                           request.body_hash, headers);
}

bool S3Service::renew_key(const std::string& refused) { return credentials_->refused(refused); }

Refusal S3Service::judge(const StoreRequest& request, const StoreAnswer& answer) {
  using Kind = Refusal::Kind;
  const S3Error error = parse_s3_error(answer.body);
  const std::string said = what_it_said(answer, error);
  const std::string_view code = error.code;
  const bool silent = request.method == net::Method::kHead;  // no body, so no code
  if (request.forbidden != nullptr) {
    *request.forbidden = answer.status == 403 && (silent || code == "AccessDenied");
  }
  if (answer.status == 507 || code.find("Quota") != std::string_view::npos ||
      code.find("StorageFull") != std::string_view::npos) {
    return {Kind::kFinal,
            resource_exhausted(said, "raise the quota, or delete what is not needed")};
  }
  if (answer.status == 429 || answer.status == 503 ||
      is_one_of(code, {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"})) {
    return {Kind::kThrottled, unavailable(said, "the store is busy; try again later")};
  }
  if (answer.status == 501 && request.headers.has("If-None-Match")) {
    // Those that are under way have been sent with the condition, too. A store that says so of what
    // is sent without it must be believed at last.
    conditional_ = false;
    if (conditions_refused_.fetch_add(1) < kMostConditionsRefused) {
      return {Kind::kAgain, unavailable(said)};
    }
  }
  if (answer.status == 408 || (answer.status >= 500 && answer.status != 501) ||
      is_one_of(code, {"RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch",
                       "XAmzContentChecksumMismatch", "IncompleteBody", "OperationAborted",
                       "ConditionalRequestConflict"})) {
    return {Kind::kAgain, unavailable(said, "try again later")};
  }
  if (is_one_of(code, {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "TokenRefreshRequired",
                       "SignatureDoesNotMatch"}) ||
      (silent && (answer.status == 403 || answer.status == 400))) {
    return {Kind::kKey, advice(request, answer, error)};
  }
  return {Kind::kFinal, advice(request, answer, error)};
}

// What cannot succeed, and what to do about it.
Status S3Service::advice(const StoreRequest& request, const StoreAnswer& answer,
                         const S3Error& error) const {
  const std::string said = what_it_said(answer, error);
  if (answer.status == 412) return already_exists("the key has an object");
  if (answer.status == 416) return data_loss("the object ends before the range that was read");
  if (answer.status == 404 && error.code != "NoSuchBucket") return not_found("no such object");
  if (error.code == "NoSuchBucket") {
    return failed_precondition(
        said, str_cat("create the bucket ", options_.bucket, " at ", options_.endpoint.authority(),
                      ", or correct the store's URL"));
  }
  std::string region(answer.headers.get("x-amz-bucket-region"));
  if (region.empty()) region = error.region;
  if (!region.empty() && region != options_.region) {
    return failed_precondition(
        str_cat(said, " (the bucket is in region ", region.substr(0, 64), ", not in ",
                options_.region, ")"),
        str_cat("add region=", region.substr(0, 64), " to the store's URL, or set AWS_REGION"));
  }
  const auto theirs = net::parse_http_date(answer.headers.get("Date"));
  const int64_t skew = theirs.ok() ? clock_.wall_ms() - *theirs : 0;
  if (error.code == "RequestTimeTooSkewed" ||
      (answer.status == 403 && std::abs(skew) > kSkewWorthSaying)) {
    const std::string by =
        std::abs(skew) > kSkewWorthSaying
            ? str_cat(" (this machine's clock is ", format_duration(std::abs(skew)),
                      skew < 0 ? " behind" : " ahead of", " the store's)")
            : "";
    return failed_precondition(str_cat(said, by),
                               "set this machine's clock: signatures hold for 15 minutes");
  }
  if (is_one_of(error.code, {"ExpiredToken", "TokenRefreshRequired", "InvalidToken"})) {
    return failed_precondition(said, "renew the session's key where the server reads it");
  }
  if (is_one_of(error.code, {"InvalidAccessKeyId", "SignatureDoesNotMatch"})) {
    return failed_precondition(
        said, options_.is_google ? "check GCS_HMAC_ACCESS_ID and GCS_HMAC_SECRET"
                                 : "check the access key and its secret (AWS_ACCESS_KEY_ID, "
                                   "AWS_SECRET_ACCESS_KEY, or the profile)");
  }
  if (answer.status == 401 || answer.status == 403) {
    return failed_precondition(
        said, str_cat("the key must be allowed to put, get, delete and list objects and to abort "
                      "multipart uploads in the bucket ",
                      options_.bucket));
  }
  if (answer.status == 413 || error.code == "EntityTooLarge") return too_large(said);
  if (options_.checksum == StoreUrl::Checksum::kSha256 &&
      to_lower(error.message).find("checksum") != std::string::npos) {
    return failed_precondition(
        said, "this store seems not to know SHA-256 checksums: add checksum=md5 to its URL");
  }
  return failed_precondition(str_cat(said, " (", net::method_name(request.method), " at ",
                                     options_.endpoint.authority(), ")"),
                             "check that the store's URL names an S3 endpoint");
}

Status S3Service::put(const std::string& key, std::string_view bytes, const WriteId& id) {
  StoreRequest put = request(net::Method::kPut, key);
  set_body(put, bytes);
  put.headers.set("If-None-Match", "*");
  put.headers.set(std::string(kWriteIdHeader), id);
  bool unsure = false;
  const Status status =
      client_
          .run(
              put, [&](const StoreAnswer& answer) { return check_written(put, answer); }, &unsure)
          .status();
  if (status.code() != Code::kAlreadyExists || !unsure) return status;
  // An attempt that seemed to fail may have left the object.
  QANAT_ASSIGN_OR_RETURN(const bool equal, has_bytes(key, bytes));
  if (equal) return ok_status();
  QANAT_ASSIGN_OR_RETURN(const bool mine, is_mine(key, id, static_cast<int64_t>(bytes.size())));
  return mine ? data_loss("the store kept other bytes than were sent to it") : status;
}

Result<bool> S3Service::has_bytes(const std::string& key, std::string_view bytes) {
  if (bytes.empty()) {
    const auto found = size(key);
    if (!found.ok()) return found.status();
    return *found == 0;
  }
  const auto found = get(key, 0, static_cast<int64_t>(bytes.size()));
  if (found.code() == Code::kDataLoss) return false;  // shorter
  if (!found.ok()) return found.status();
  if (*found != bytes) return false;
  QANAT_ASSIGN_OR_RETURN(const int64_t whole, size(key));
  return whole == static_cast<int64_t>(bytes.size());
}

Result<bool> S3Service::is_mine(const std::string& key, const WriteId& id, int64_t size) {
  StoreRequest head = request(net::Method::kHead, key);
  const auto answer = read(head, key);
  if (answer.code() == Code::kNotFound) return false;
  if (!answer.ok()) return answer.status();
  // Google takes Amazon's name of the header, and may answer with its own.
  const bool mine =
      answer->headers.get(kWriteIdHeader) == id || answer->headers.get(kGoogleWriteIdHeader) == id;
  return mine && answer->headers.get("Content-Length") == std::to_string(size);
}

Result<StoreAnswer> S3Service::read(StoreRequest& request, const std::string& key,
                                    const StoreClient::Check& check) {
  bool forbidden = false;
  request.forbidden = &forbidden;
  Result<StoreAnswer> answer = client_.run(request, check);
  request.forbidden = nullptr;
  if (answer.ok()) {
    has_read_ = true;
    return answer;
  }
  return !forbidden ? answer.status() : why_forbidden(key, answer.status());
}

Status S3Service::why_forbidden(const std::string& key, const Status& refused) {
  // Also tells a wrong key from a missing right, which an answer without a body does not.
  const auto listed = list(key, "");
  if (listed.ok()) {
    const bool there = !listed->objects.empty() && listed->objects[0].key == key;
    return there ? refused : not_found("no such object");
  }
  if (listed.code() != Code::kPermissionDenied) return listed.status();
  if (!has_read_) return refused;
  return not_found(
      "no such object (or no right to read it: the key may not list the bucket, so the store says "
      "the same of both)");
}

Result<std::string> S3Service::begin_upload(const std::string& key, const WriteId& id) {
  StoreRequest post = request(net::Method::kPost, key, "uploads=");
  post.headers.set(std::string(kWriteIdHeader), id);
  if (options_.checksum == StoreUrl::Checksum::kSha256) {
    post.headers.set("x-amz-checksum-algorithm", "SHA256");
  }
  std::string upload;
  QANAT_RETURN_IF_ERROR(client_
                            .run(post,
                                 [&](const StoreAnswer& answer) -> Status {
                                   QANAT_ASSIGN_OR_RETURN(upload, parse_s3_upload_id(answer.body));
                                   return ok_status();
                                 })
                            .status());
  return upload;
}

Result<UploadedPart> S3Service::put_part(const std::string& key, const std::string& upload,
                                         int number, std::string_view bytes,
                                         const std::shared_ptr<net::CancelSignal>& cancel) {
  StoreRequest put =
      request(net::Method::kPut, key,
              str_cat("partNumber=", number, "&uploadId=", net::encode_path_segment(upload)));
  set_body(put, bytes);
  put.cancel = cancel;
  QANAT_ASSIGN_OR_RETURN(const StoreAnswer answer, client_.run(put, [&](const StoreAnswer& given) {
    if (given.headers.get("ETag").empty()) return data_loss("the store gave a part no ETag");
    return check_written(put, given);
  }));
  return UploadedPart{std::string(answer.headers.get("ETag")),
                      std::string(answer.headers.get(kChecksumHeader)),
                      static_cast<int64_t>(bytes.size())};
}

Status S3Service::complete_upload(const std::string& key, const std::string& upload,
                                  const std::vector<UploadedPart>& parts, const WriteId& id) {
  StoreRequest post =
      request(net::Method::kPost, key, str_cat("uploadId=", net::encode_path_segment(upload)));
  const std::string body = s3_complete_body(parts);
  post.body = body;
  post.body_hash = sha256(body).to_hex();
  post.headers.set("Content-Type", "application/xml");
  post.headers.set("If-None-Match", "*");
  bool unsure = false;
  S3Error error;  // in an answer of 200
  Status status = client_
                      .run(
                          post,
                          [&error](const StoreAnswer& answer) -> Status {
                            QANAT_RETURN_IF_ERROR(parse_s3_completed(answer.body, error));
                            if (error.code.empty() ||
                                is_one_of(error.code, {"NoSuchUpload", "PreconditionFailed"})) {
                              return ok_status();  // nothing to try again
                            }
                            return unavailable(what_it_said(answer, error));
                          },
                          &unsure)
                      .status();
  if (status.ok() && error.code == "NoSuchUpload") status = not_found("no such upload");
  if (status.ok() && error.code == "PreconditionFailed") {
    status = already_exists("the key has an object");
  }
  // The upload is gone, or the object is there: perhaps by an attempt that seemed to fail.
  const bool ended = status.code() == Code::kNotFound || status.code() == Code::kAlreadyExists;
  if (!ended) return status;
  if (unsure) {
    int64_t size = 0;
    for (const UploadedPart& part : parts) size += part.size;
    QANAT_ASSIGN_OR_RETURN(const bool mine, is_mine(key, id, size));
    if (mine) return ok_status();
  }
  if (status.code() == Code::kAlreadyExists) return status;
  return unavailable("the store has lost the parts that were uploaded", "try again");
}

void S3Service::abort_upload(const std::string& key, const std::string& upload) {
  StoreRequest abort =
      request(net::Method::kDelete, key, str_cat("uploadId=", net::encode_path_segment(upload)));
  abort.max_attempts = kHurriedAttempts;
  (void)client_.run(abort);
}

Result<std::string> S3Service::get(const std::string& key, int64_t offset, int64_t length) {
  StoreRequest get = request(net::Method::kGet, key);
  get.headers.set("Range", str_cat("bytes=", offset, "-", offset + length - 1));
  if (!options_.is_google && options_.checksum == StoreUrl::Checksum::kSha256) {
    get.headers.set("x-amz-checksum-mode", "ENABLED");
  }
  get.max_answer_bytes = static_cast<uint64_t>(length);
  QANAT_ASSIGN_OR_RETURN(StoreAnswer answer, read(get, key, [&](const StoreAnswer& given) {
                           return check_read(given, offset, length);
                         }));
  if (static_cast<int64_t>(answer.body.size()) < length) {
    return data_loss(str_cat("it ends at ", offset + static_cast<int64_t>(answer.body.size()),
                             ", before the end of a read of ", length, " bytes at ", offset));
  }
  return std::move(answer.body);
}

Result<int64_t> S3Service::size(const std::string& key) {
  StoreRequest head = request(net::Method::kHead, key);
  const auto answer = read(head, key);
  if (answer.code() == Code::kNotFound) {
    // An answer without a body does not say whether it is the bucket that is missing.
    const auto listed = list(key, "");
    if (!listed.ok() && listed.code() != Code::kPermissionDenied) return listed.status();
  }
  if (!answer.ok()) return answer.status();
  const auto size = parse_i64(answer->headers.get("Content-Length"));
  if (!size.ok() || *size < 0) return data_loss("the store does not say how long an object is");
  return *size;
}

Status S3Service::remove(const std::string& key, bool hurried) {
  StoreRequest remove = request(net::Method::kDelete, key);
  if (hurried) remove.max_attempts = kHurriedAttempts;
  const Status status = client_.run(remove).status();
  return status.code() == Code::kNotFound ? ok_status() : status;
}

Result<ListPage> S3Service::list(const std::string& prefix, const std::string& from) {
  std::string query = "list-type=2";
  if (!from.empty()) str_append(query, "&continuation-token=", net::encode_path_segment(from));
  if (!prefix.empty()) str_append(query, "&prefix=", net::encode_path_segment(prefix));
  StoreRequest get = request(net::Method::kGet, "", query);
  get.max_answer_bytes = kMaxListBytes;
  bool forbidden = false;
  get.forbidden = &forbidden;
  ListPage page;
  const Status status = client_
                            .run(get,
                                 [&](const StoreAnswer& answer) -> Status {
                                   QANAT_ASSIGN_OR_RETURN(page, parse_s3_list(answer.body));
                                   return ok_status();
                                 })
                            .status();
  if (status.ok()) return page;
  return forbidden ? permission_denied(status.message(), status.hint()) : status;
}

Result<PresignedRequest> S3Service::presigned(net::Method method, const std::string& key,
                                              std::pair<std::string, std::string> header,
                                              std::chrono::seconds lifetime) {
  QANAT_ASSIGN_OR_RETURN(const net::AwsKey found, credentials_->key());
  const int64_t now = clock_.wall_ms();
  QANAT_ASSIGN_OR_RETURN(const net::Url url,
                         net::presign(found, {options_.region, "s3"}, now, lifetime, method,
                                      request(method, key).url, net::Headers{header}));
  return PresignedRequest{std::string(net::method_name(method)),
                          url.to_string(),
                          {std::move(header)},
                          now + lifetime.count() * 1000};
}

Result<PresignedRequest> S3Service::presign_read(const std::string& key, int64_t offset,
                                                 int64_t length, std::chrono::seconds lifetime) {
  return presigned(net::Method::kGet, key,
                   {"Range", str_cat("bytes=", offset, "-", offset + length - 1)}, lifetime);
}

Result<PresignedRequest> S3Service::presign_write(const std::string& key, int64_t size,
                                                  std::chrono::seconds lifetime) {
  return presigned(net::Method::kPut, key, {"Content-Length", std::to_string(size)}, lifetime);
}

std::string S3Service::describe() const {
  return str_cat(options_.is_google ? "Google Cloud Storage " : "S3 ", options_.shown, " at ",
                 options_.endpoint.authority());
}

}  // namespace qanat::object
