#include "object/s3_fake.h"

#include <algorithm>
#include <atomic>
#include <set>

#include "qanat/base/bytes.h"
#include "qanat/base/clock.h"
#include "qanat/base/hash.h"
#include "qanat/base/id.h"
#include "qanat/base/string.h"
#include "qanat/net/digest.h"
#include "qanat/object/xml.h"

namespace qanat::object {
namespace {

constexpr size_t kSmallestPart = 5 << 20;
constexpr std::string_view kBucket = "the-bucket";
constexpr std::string_view kRegion = "eu-test-1";

struct Object {
  std::string bytes;
  std::string tag;       // with quotes
  std::string checksum;  // base64 of SHA-256, or ""
  std::string write_id;
};

std::string quoted_md5(std::string_view bytes) {
  return str_cat("\"", to_hex(net::md5(bytes)), "\"");
}

std::string error_xml(std::string_view code, std::string_view message, std::string_view more = "") {
  return str_cat("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>", code,
                 "</Code><Message>", escape_xml(message), "</Message>", more,
                 "<RequestId>1</RequestId></Error>");
}

}  // namespace

struct S3Fake::Upload {
  std::string key;
  std::string write_id;
  bool checksums = false;
  std::map<int, Object> parts;
};

struct S3Fake::State {
  mutable Mutex mutex;
  std::function<Fault(const net::RequestHead&)> fault GUARDED_BY(mutex);
  net::AwsKey key GUARDED_BY(mutex){"TESTKEY", "not/so+secret", ""};
  size_t page_size GUARDED_BY(mutex) = 1000;
  size_t quota GUARDED_BY(mutex) = SIZE_MAX;
  bool conditional GUARDED_BY(mutex) = true;
  int64_t ahead_ms GUARDED_BY(mutex) = 0;
  Rights rights GUARDED_BY(mutex);
  bool late_refusals GUARDED_BY(mutex) = false;
  bool checksums GUARDED_BY(mutex) = true;
  std::string retry_after GUARDED_BY(mutex);
  std::map<std::string, Object> objects GUARDED_BY(mutex);
  std::map<std::string, Upload> uploads GUARDED_BY(mutex);
  std::atomic<uint64_t> requests{0};
  std::atomic<int> at_once{0};
  std::atomic<int> most_at_once{0};
};

// One request, and what is answered to it.
struct S3Fake::Exchange {
  explicit Exchange(State& state, const net::RequestHead& head, std::string body)
      : state(state), head(head), body(std::move(body)) {}

  void refuse(int with, std::string_view code, std::string_view message = "no",
              std::string_view more = "") {
    status = with;
    headers.clear();
    headers.set("Content-Type", "application/xml");
    answer = error_xml(code, message, more);
  }

  void run() {
    if (!check_signature() || !check_body()) return;
    const auto query = head.query();
    const auto path = net::percent_decode(head.path);
    if (!query.ok() || !path.ok()) return refuse(400, "InvalidURI");
    const std::string_view rest = std::string_view(*path).substr(1);
    const auto [bucket, found_key] = split_once(rest, '/');
    if (bucket != kBucket) return refuse(404, "NoSuchBucket", "The bucket does not exist");
    key = found_key;
    parameters.clear();
    for (const auto& [name, value] : query->parameters()) {
      if (!name.starts_with("X-Amz-")) parameters[name] = value;
    }
    MutexLock lock(state.mutex);
    for (const auto& [name, value] : head.headers.fields()) {
      if (state.checksums || !name.starts_with("x-amz-checksum-")) continue;
      return refuse(400, "InvalidArgument", str_cat("Unsupported header '", name, "'"));
    }
    if (key.empty()) return head.method == net::Method::kGet ? list() : not_implemented();
    if (key.size() > 1024) return refuse(400, "KeyTooLongError");
    switch (head.method) {
      case net::Method::kPut:
        return parameters.empty() ? put() : put_part();
      case net::Method::kGet:
      case net::Method::kHead:
        return parameters.empty() ? get() : not_implemented();
      case net::Method::kDelete:
        return remove();
      case net::Method::kPost:
        return parameters.contains("uploads") ? begin() : complete();
      default:
        return not_implemented();
    }
  }

  void not_implemented() { refuse(501, "NotImplemented"); }

  bool check_signature() {
    net::AwsKey key;
    int64_t now;
    {
      MutexLock lock(state.mutex);
      key = state.key;
      now = real_clock().wall_ms() + state.ahead_ms;
    }
    const auto claim = net::read_claim(head);
    if (!claim.ok()) return refuse(403, "AccessDenied", claim.status().message()), false;
    if (claim->key_id != key.id) return refuse(403, "InvalidAccessKeyId"), false;
    if (claim->scope.region != kRegion || claim->scope.service != "s3") {
      refuse(400, "AuthorizationHeaderMalformed", "the region is wrong",
             str_cat("<Region>", kRegion, "</Region>"));
      return false;
    }
    if (!claim->expires_at_ms && std::abs(claim->signed_at_ms - now) > 15 * 60'000) {
      return refuse(403, "RequestTimeTooSkewed", "The difference is too large"), false;
    }
    const auto verified = net::verify(
        head, [&](const std::string&) { return std::optional<std::string>(key.secret); }, now);
    if (!verified.ok()) {
      refuse(403, claim->expires_at_ms ? "AccessDenied" : "SignatureDoesNotMatch",
             verified.status().message());
      return false;
    }
    if (claim->session_token != key.session_token) {
      return refuse(400, "ExpiredToken", "The provided token has expired."), false;
    }
    hash = claim->payload_hash;
    return true;
  }

  bool check_body() {
    const std::string digest = sha256(body).to_hex();
    if (hash != net::kUnsignedPayload && hash != digest) {
      return refuse(400, "XAmzContentSHA256Mismatch"), false;
    }
    const std::string_view md5 = head.headers.get("Content-MD5");
    if (!md5.empty() && md5 != to_base64(net::md5(body))) return refuse(400, "BadDigest"), false;
    checksum = head.headers.get("x-amz-checksum-sha256");
    if (!checksum.empty() && checksum != to_base64(sha256(body).view())) {
      return refuse(400, "BadDigest"), false;
    }
    return true;
  }

  // False, and refused, if If-None-Match forbids to write.
  bool may_write() REQUIRES(state.mutex) {
    const std::string_view condition = head.headers.get("If-None-Match");
    if (condition.empty()) return true;
    if (!state.conditional || condition != "*") return not_implemented(), false;
    if (state.objects.contains(key)) return refuse(412, "PreconditionFailed"), false;
    return true;
  }

  bool has_room(size_t more) REQUIRES(state.mutex) {
    size_t used = more;
    for (const auto& [name, object] : state.objects) used += object.bytes.size();
    if (used <= state.quota) return true;
    return refuse(403, "QuotaExceeded"), false;
  }

  void tell(const Object& object) {
    headers.set("ETag", object.tag);
    if (!object.checksum.empty()) headers.set("x-amz-checksum-sha256", object.checksum);
  }

  void put() REQUIRES(state.mutex) {
    if (!may_write() || !has_room(body.size())) return;
    Object object{body, quoted_md5(body), std::string(checksum),
                  std::string(head.headers.get("x-amz-meta-qanat-write"))};
    tell(object);
    state.objects[key] = std::move(object);
  }

  void begin() REQUIRES(state.mutex) {
    const std::string id = str_cat(random_id(), "+/=&");  // to be encoded with care
    Upload upload;
    upload.key = key;
    upload.write_id = head.headers.get("x-amz-meta-qanat-write");
    upload.checksums = head.headers.get("x-amz-checksum-algorithm") == "SHA256";
    state.uploads[id] = upload;
    answer = str_cat(
        "<InitiateMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
        "<Bucket>",
        kBucket, "</Bucket><Key>", key, "</Key><UploadId>", escape_xml(id),
        "</UploadId></InitiateMultipartUploadResult>");
  }

  Upload* upload() REQUIRES(state.mutex) {
    auto found = state.uploads.find(parameters["uploadId"]);
    if (found != state.uploads.end() && found->second.key == key) return &found->second;
    refuse(404, "NoSuchUpload", "The upload does not exist");
    return nullptr;
  }

  void put_part() REQUIRES(state.mutex) {
    const auto number = parse_u64(parameters["partNumber"]);
    if (!number.ok() || *number < 1 || *number > 10'000) return refuse(400, "InvalidArgument");
    Upload* into = upload();
    if (into == nullptr || !has_room(body.size())) return;
    if (into->checksums && checksum.empty()) return refuse(400, "InvalidRequest");
    if (!into->checksums && !checksum.empty()) return refuse(400, "InvalidRequest");
    Object part{body, quoted_md5(body), std::string(checksum), ""};
    tell(part);
    into->parts[static_cast<int>(*number)] = std::move(part);
  }

  void complete() REQUIRES(state.mutex) {
    Upload* from = upload();
    if (from == nullptr || !may_write()) return;
    const auto list = parse_xml(body);
    if (!list.ok() || list->name != "CompleteMultipartUpload" || list->children.empty()) {
      return refuse(400, "MalformedXML");
    }
    Object object;
    object.write_id = from->write_id;
    std::string digests;
    int last = 0;
    for (const XmlElement& item : list->children) {
      const auto number = parse_u64(item.child_text("PartNumber"));
      if (item.name != "Part" || !number.ok()) return refuse(400, "MalformedXML");
      if (static_cast<int>(*number) <= last) return refuse(400, "InvalidPartOrder");
      last = static_cast<int>(*number);
      auto part = from->parts.find(last);
      if (part == from->parts.end() || part->second.tag != item.child_text("ETag") ||
          part->second.checksum != item.child_text("ChecksumSHA256")) {
        return refuse(400, "InvalidPart");
      }
      if (part->second.bytes.size() < kSmallestPart && &item != &list->children.back()) {
        return refuse(400, "EntityTooSmall");
      }
      object.bytes += part->second.bytes;
      digests += net::md5(part->second.bytes);
    }
    object.tag = str_cat("\"", to_hex(net::md5(digests)), "-", list->children.size(), "\"");
    answer = str_cat("<CompleteMultipartUploadResult><ETag>", escape_xml(object.tag),
                     "</ETag></CompleteMultipartUploadResult>");
    state.objects[key] = std::move(object);
    state.uploads.erase(parameters["uploadId"]);
  }

  void remove() REQUIRES(state.mutex) {
    if (!parameters.empty()) {
      if (upload() == nullptr) return;
      state.uploads.erase(parameters["uploadId"]);
    } else {
      state.objects.erase(key);
    }
    status = 204;
  }

  void get() REQUIRES(state.mutex) {
    auto found = state.objects.find(key);
    const bool absent = found == state.objects.end();
    if (!state.rights.read || (absent && !state.rights.tells_absent)) {
      return refuse(403, "AccessDenied", "Access Denied");
    }
    if (absent) return refuse(404, "NoSuchKey", "no such key");
    const Object& object = found->second;
    const net::ByteRange range = net::parse_range(head.headers.get("Range"), object.bytes.size());
    if (range.kind == net::ByteRange::Kind::kUnsatisfiable) return refuse(416, "InvalidRange");
    headers.set("ETag", object.tag);
    if (!object.write_id.empty()) headers.set("x-amz-meta-qanat-write", object.write_id);
    if (head.headers.get("x-amz-checksum-mode") == "ENABLED" && !object.checksum.empty() &&
        range.kind == net::ByteRange::Kind::kWhole) {
      headers.set("x-amz-checksum-sha256", object.checksum);
    }
    if (range.kind == net::ByteRange::Kind::kPart) {
      status = 206;
      headers.set("Content-Range", net::content_range(range, object.bytes.size()));
      answer = object.bytes.substr(range.first, range.length);
    } else {
      answer = object.bytes;
    }
  }

  void list() REQUIRES(state.mutex) {
    if (parameters["list-type"] != "2") return not_implemented();
    if (!state.rights.list) return refuse(403, "AccessDenied", "Access Denied");
    for (const auto& [name, value] : parameters) {
      if (name != "list-type" && name != "prefix" && name != "continuation-token") {
        return not_implemented();
      }
    }
    const std::string prefix = parameters["prefix"];
    std::string after = parameters["continuation-token"];
    if (!after.empty()) {
      if (!after.starts_with("after+")) return refuse(400, "InvalidArgument");
      after.erase(0, 6);
    }
    answer = "<?xml version=\"1.0\"?><ListBucketResult>";
    size_t listed = 0;
    std::string last;
    bool more = false;
    for (const auto& [name, object] : state.objects) {
      if (!name.starts_with(prefix) || (!after.empty() && name <= after)) continue;
      if (listed == state.page_size) {
        more = true;
        break;
      }
      str_append(answer, "<Contents><Key>", escape_xml(name), "</Key><Size>", object.bytes.size(),
                 "</Size><ETag>", escape_xml(object.tag), "</ETag></Contents>");
      last = name;
      ++listed;
    }
    if (more) str_append(answer, "<NextContinuationToken>after+", last, "</NextContinuationToken>");
    str_append(answer, "<IsTruncated>", more ? "true" : "false",
               "</IsTruncated></ListBucketResult>");
  }

  State& state;
  const net::RequestHead& head;
  const std::string body;
  std::string key;
  std::string hash;
  std::string_view checksum;
  std::map<std::string, std::string> parameters;
  int status = 200;
  net::Headers headers;
  std::string answer;
};

S3Fake::S3Fake() : state_(std::make_unique<State>()) {
  net::ServerOptions options;
  options.max_handler_threads = 64;
  server_ = *net::HttpServer::create(options);
  listener_ = *server_->listen_tcp(
      "127.0.0.1", 0,
      [this](net::Request& request, net::Response& response) { handle(request, response); });
}

S3Fake::~S3Fake() { server_->stop(net::Milliseconds(1000)); }

void S3Fake::handle(net::Request& request, net::Response& response) {
  ++state_->requests;
  const int now = ++state_->at_once;
  for (int most = state_->most_at_once; now > most;) {
    if (state_->most_at_once.compare_exchange_weak(most, now)) break;
  }
  struct Leave {
    std::atomic<int>& at_once;
    ~Leave() { --at_once; }
  } leave{state_->at_once};

  Fault fault = Fault::kNone;
  {
    MutexLock lock(state_->mutex);
    if (state_->fault) fault = state_->fault(request.head());
  }
  // Started and not finished: the server cuts the connection.
  const auto lose = [&] { (void)response.start(200, 1000); };
  if (fault == Fault::kCutRequest) {
    char some[4096];
    (void)request.read(some, sizeof some);
    return lose();
  }
  auto body = request.read_all(64 << 20);
  if (!body.ok() || fault == Fault::kLostBefore) return lose();
  if (fault == Fault::kErrorBefore || fault == Fault::kSlowDown) {
    const bool slow = fault == Fault::kSlowDown;
    MutexLock lock(state_->mutex);
    if (slow && !state_->retry_after.empty()) {
      response.headers().set("Retry-After", state_->retry_after);
    }
    (void)response.send(slow ? 503 : 500,
                        error_xml(slow ? "SlowDown" : "InternalError", "try again"),
                        "application/xml");
    return;
  }
  Exchange exchange(*state_, request.head(), *std::move(body));
  exchange.run();
  {
    MutexLock lock(state_->mutex);
    if (state_->late_refusals && request.head().method == net::Method::kPost &&
        exchange.parameters.contains("uploadId") && exchange.status >= 400) {
      exchange.status = 200;
    }
  }
  if (exchange.status < 300) {
    if (fault == Fault::kLostAfter) return lose();
    if (fault == Fault::kErrorAfter) exchange.refuse(500, "InternalError");
    if (fault == Fault::kErrorInside) {
      exchange.answer = error_xml("InternalError", "We encountered an internal error.");
    }
    if (fault == Fault::kWrongTag && exchange.headers.has("ETag")) {
      exchange.headers.set("ETag", quoted_md5("something else"));
      if (exchange.headers.has("x-amz-checksum-sha256")) {
        exchange.headers.set("x-amz-checksum-sha256", to_base64(sha256("something else").view()));
      }
    }
    if (fault == Fault::kFlippedBit && !exchange.answer.empty()) {
      exchange.answer[exchange.answer.size() / 2] ^= 4;
    }
    if (fault == Fault::kDamaged) {
      MutexLock lock(state_->mutex);
      auto found = state_->objects.find(exchange.key);
      if (found != state_->objects.end() && !found->second.bytes.empty()) {
        found->second.bytes[0] ^= 1;
        found->second.checksum = to_base64(sha256(found->second.bytes).view());
        found->second.tag = quoted_md5(found->second.bytes);
        exchange.tell(found->second);
      }
    }
  }
  for (const auto& [name, value] : exchange.headers.fields()) response.headers().add(name, value);
  if (fault == Fault::kCutAnswer && exchange.answer.size() > 1) {
    (void)response.start(exchange.status, exchange.answer.size());
    (void)response.write(std::string_view(exchange.answer).substr(0, exchange.answer.size() / 2));
    return;
  }
  (void)response.send(exchange.status, exchange.answer);
}

std::string S3Fake::url(std::string_view prefix, std::string_view more) const {
  return str_cat("s3://", kBucket, prefix.empty() ? "" : "/", prefix,
                 "?endpoint=http://127.0.0.1:", port(), "&region=", kRegion, more);
}

uint16_t S3Fake::port() const { return server_->port_of(listener_); }

void S3Fake::set_fault(std::function<Fault(const net::RequestHead&)> fault) {
  MutexLock lock(state_->mutex);
  state_->fault = std::move(fault);
}

void S3Fake::set_key(net::AwsKey key) {
  MutexLock lock(state_->mutex);
  state_->key = std::move(key);
}

net::AwsKey S3Fake::key() const {
  MutexLock lock(state_->mutex);
  return state_->key;
}

void S3Fake::set_page_size(size_t keys) {
  MutexLock lock(state_->mutex);
  state_->page_size = keys;
}

void S3Fake::set_retry_after(std::string text) {
  MutexLock lock(state_->mutex);
  state_->retry_after = std::move(text);
}

void S3Fake::set_quota(size_t bytes) {
  MutexLock lock(state_->mutex);
  state_->quota = bytes;
}

void S3Fake::set_conditional(bool knows) {
  MutexLock lock(state_->mutex);
  state_->conditional = knows;
}

void S3Fake::set_clock_ahead_ms(int64_t ms) {
  MutexLock lock(state_->mutex);
  state_->ahead_ms = ms;
}

void S3Fake::set_rights(Rights rights) {
  MutexLock lock(state_->mutex);
  state_->rights = rights;
}

void S3Fake::set_late_refusals(bool late) {
  MutexLock lock(state_->mutex);
  state_->late_refusals = late;
}

void S3Fake::set_checksums(bool knows) {
  MutexLock lock(state_->mutex);
  state_->checksums = knows;
}

std::map<std::string, std::string> S3Fake::objects() const {
  MutexLock lock(state_->mutex);
  std::map<std::string, std::string> all;
  for (const auto& [key, object] : state_->objects) all[key] = object.bytes;
  return all;
}

size_t S3Fake::uploads() const {
  MutexLock lock(state_->mutex);
  return state_->uploads.size();
}

uint64_t S3Fake::requests() const { return state_->requests; }

int S3Fake::most_at_once() const { return state_->most_at_once; }

}  // namespace qanat::object
