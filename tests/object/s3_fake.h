// A small S3 in this process, strict to Amazon's documentation, with a hook that makes it
// misbehave.
//
// Strict: it checks signature, region, session token and time (with the verifier that a server
// uses); Content-MD5, x-amz-content-sha256 and x-amz-checksum-sha256 of every body; part numbers,
// sizes, ETags and checksums of multipart uploads; conditions; and it answers 501 to anything it
// does not know, so that a client that sends what S3 would not understand fails here.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "qanat/base/thread_annotations.h"
#include "qanat/net/http_server.h"
#include "qanat/net/sigv4.h"

namespace qanat::object {

class S3Fake {
 public:
  // What happens to one request instead of, or after, what should.
  enum class Fault {
    kNone,
    kCutRequest,   // the connection ends in the middle of the request's body
    kLostBefore,   // the connection ends without an answer, nothing done
    kLostAfter,    // the same, but it was done
    kErrorBefore,  // 500, nothing done
    kErrorAfter,   // 500, but it was done
    kSlowDown,     // 503 SlowDown
    kCutAnswer,    // the connection ends in the middle of the answer's body
    kWrongTag,     // another ETag and checksum than the bytes have
    kFlippedBit,   // one bit of the answer's body is turned around
    kDamaged,      // one bit of what is stored is turned around
    kErrorInside,  // 200 with an error in its body
  };

  S3Fake();
  ~S3Fake();

  std::string url(std::string_view prefix = "", std::string_view more = "") const;
  uint16_t port() const;

  // Asked for each request, on the server's threads.
  void set_fault(std::function<Fault(const net::RequestHead&)> fault);
  // What it takes. A session token "" is none.
  void set_key(net::AwsKey key);
  net::AwsKey key() const;
  void set_page_size(size_t keys);
  void set_retry_after(std::string text);  // sent with SlowDown
  void set_quota(size_t bytes);
  void set_conditional(bool knows);  // whether it knows If-None-Match, else 501
  void set_clock_ahead_ms(int64_t ms);
  // What its key may do. Without the right to list, Amazon says 403 of what is not there, too; and
  // also with it, where it holds for a prefix only.
  struct Rights {
    bool list = true;
    bool read = true;
    bool tells_absent = true;
  };
  void set_rights(Rights rights);
  // Refusals of the end of an upload in parts come as 200, with the error in the body.
  void set_late_refusals(bool late);
  void set_checksums(bool knows);  // whether it knows x-amz-checksum-..., else 400

  std::map<std::string, std::string> objects() const;
  size_t uploads() const;  // unfinished
  uint64_t requests() const;
  int most_at_once() const;

 private:
  struct Upload;
  struct Exchange;
  struct State;
  void handle(net::Request& request, net::Response& response);

  std::unique_ptr<State> state_;
  std::unique_ptr<net::HttpServer> server_;  // ends before what its handlers use
  net::HttpServer::ListenerId listener_ = 0;
};

}  // namespace qanat::object
