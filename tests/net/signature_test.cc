// Signatures against the published vectors: AWS's Signature Version 4 test suite (service
// "service", 30 August 2015) and the examples of the S3 documentation (24 May 2013).
#include <gtest/gtest.h>

#include "qanat/base/bytes.h"
#include "qanat/base/hash.h"
#include "qanat/base/string.h"
#include "qanat/net/azure_signature.h"
#include "qanat/net/digest.h"
#include "qanat/net/http_date.h"
#include "qanat/net/sigv4.h"

namespace qanat::net {
namespace {

const AwsKey kSuiteKey{"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", ""};
const AwsKey kS3Key{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""};
const SigV4Scope kSuiteScope{"us-east-1", "service"};
const SigV4Scope kS3Scope{"us-east-1", "s3"};

std::string signature_of(const Headers& headers) {
  const std::string_view text = headers.get("Authorization");
  const size_t at = text.rfind("Signature=");
  return at == std::string_view::npos ? "" : std::string(text.substr(at + 10));
}

TEST(SigV4Test, TheTestSuite) {
  struct Vector {
    const char* name;
    Method method;
    const char* target;
    Headers headers;
    const char* body;
    const char* signature;
  };
  const Vector kVectors[] = {
      {"get-vanilla",
       Method::kGet,
       "/",
       {},
       "",
       "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
      {"get-vanilla-query-order-key-case",
       Method::kGet,
       "/?Param2=value2&Param1=value1",
       {},
       "",
       "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
      {"get-header-value-trim",
       Method::kGet,
       "/",
       {{"My-Header1", " value1"}, {"My-Header2", " \"a   b   c\""}},
       "",
       "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
      {"get-relative",
       Method::kGet,
       "/example/..",
       {},
       "",
       "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
      {"get-slashes",
       Method::kGet,
       "//",
       {},
       "",
       "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
      {"post-vanilla",
       Method::kPost,
       "/",
       {},
       "",
       "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
      {"post-header-key-sort",
       Method::kPost,
       "/",
       {{"My-Header1", "value1"}},
       "",
       "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
      {"post-x-www-form-urlencoded",
       Method::kPost,
       "/",
       {{"Content-Type", "application/x-www-form-urlencoded"}},
       "Param1=value1",
       "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
  };
  const int64_t time = *parse_compact_date("20150830T123600Z");
  for (const Vector& vector : kVectors) {
    Headers headers = vector.headers;
    const Url url = *Url::parse(str_cat("https://example.amazonaws.com", vector.target));
    ASSERT_TRUE(sign_request(kSuiteKey, kSuiteScope, time, vector.method, url,
                             sha256(vector.body).to_hex(), headers)
                    .ok());
    EXPECT_EQ(signature_of(headers), vector.signature) << vector.name;
  }
}

TEST(SigV4Test, TheExamplesOfS3) {
  const int64_t time = *parse_compact_date("20130524T000000Z");
  struct Example {
    Method method;
    const char* target;
    Headers headers;
    const char* body;
    const char* signature;
  };
  const Example kExamples[] = {
      {Method::kGet,
       "/test.txt",
       {{"Range", "bytes=0-9"}},
       "",
       "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
      {Method::kPut,
       "/test%24file.text",
       {{"Date", "Fri, 24 May 2013 00:00:00 GMT"}, {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
       "Welcome to Amazon S3.",
       "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
      {Method::kGet,
       "/?lifecycle",
       {},
       "",
       "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
      {Method::kGet,
       "/?max-keys=2&prefix=J",
       {},
       "",
       "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
  };
  for (const Example& example : kExamples) {
    Headers headers = example.headers;
    const Url url = *Url::parse(str_cat("https://examplebucket.s3.amazonaws.com", example.target));
    ASSERT_TRUE(sign_request(kS3Key, kS3Scope, time, example.method, url,
                             sha256(example.body).to_hex(), headers)
                    .ok());
    EXPECT_EQ(signature_of(headers), example.signature) << example.target;
  }
  const auto url = presign(kS3Key, kS3Scope, time, std::chrono::seconds(86400), Method::kGet,
                           *Url::parse("https://examplebucket.s3.amazonaws.com/test.txt"), {});
  ASSERT_TRUE(url.ok());
  EXPECT_TRUE(url->query_text.ends_with(
      "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"))
      << url->query_text;
}

RequestHead head_of(Method method, const Url& url, const Headers& headers) {
  RequestHead head;
  head.method = method;
  head.method_text = method_name(method);
  head.target = url.target();
  head.path = url.path;
  head.query_text = url.query_text;
  head.headers = headers;
  return head;
}

class VerifyTest : public ::testing::Test {
 protected:
  Result<SigV4Claim> check(const RequestHead& head, int64_t time) {
    return verify(
        head,
        [](const std::string& id) -> std::optional<std::string> {
          if (id == kS3Key.id) return kS3Key.secret;
          return std::nullopt;
        },
        time);
  }
  const int64_t now_ = *parse_compact_date("20260131T235959Z");
  const Url url_ = *Url::parse("http://localhost:7000/b/a%20b/c=d?list-type=2&prefix=x/y%2Bz");
};

TEST_F(VerifyTest, TakesWhatIsSignedAndNothingElse) {
  Headers headers{{"x-amz-meta-a", "1"}};
  ASSERT_TRUE(
      sign_request(kS3Key, kS3Scope, now_, Method::kPut, url_, sha256("body").to_hex(), headers)
          .ok());
  const RequestHead good = head_of(Method::kPut, url_, headers);
  const auto claim = check(good, now_ + 60'000);
  ASSERT_TRUE(claim.ok()) << claim.status().to_string();
  EXPECT_EQ(claim->key_id, kS3Key.id);
  EXPECT_EQ(claim->scope.region, "us-east-1");
  EXPECT_EQ(claim->payload_hash, sha256("body").to_hex());

  EXPECT_EQ(check(good, now_ + 16 * 60'000).code(), Code::kUnauthenticated);
  EXPECT_EQ(check(good, now_ - 16 * 60'000).code(), Code::kUnauthenticated);
  RequestHead bad = good;
  bad.method_text = "GET";
  EXPECT_FALSE(check(bad, now_).ok());
  bad = good;
  bad.path += "x";
  EXPECT_FALSE(check(bad, now_).ok());
  bad = good;
  bad.query_text += "&a=b";
  EXPECT_FALSE(check(bad, now_).ok());
  bad = good;
  bad.headers.set("X-Amz-Content-Sha256", std::string(kUnsignedPayload));
  EXPECT_FALSE(check(bad, now_).ok());
  bad = good;
  bad.headers.set("x-amz-acl", "public-read");  // not signed
  EXPECT_FALSE(check(bad, now_).ok());
  bad = good;
  std::string text(good.headers.get("Authorization"));
  text.back() = text.back() == '0' ? '1' : '0';
  bad.headers.set("Authorization", text);
  EXPECT_FALSE(check(bad, now_).ok());
  bad = good;
  bad.headers.set("Authorization", replace_all(good.headers.get("Authorization"), "IOSF", "XXXX"));
  EXPECT_FALSE(check(bad, now_).ok());
  // Another spelling of the same request.
  bad = good;
  bad.path = "/b/a%20b/c%3dd";
  EXPECT_TRUE(check(bad, now_).ok());
}

TEST_F(VerifyTest, PresignedRequestsAreOfTheirTimeAndOfTheirHeaders) {
  const Headers range{{"Range", "bytes=5-9"}};
  const auto url =
      presign(kS3Key, kS3Scope, now_, std::chrono::seconds(60), Method::kGet, url_, range);
  ASSERT_TRUE(url.ok());
  Headers sent = range;
  sent.set("Host", url->authority());
  const RequestHead good = head_of(Method::kGet, *url, sent);
  EXPECT_TRUE(check(good, now_ + 59'000).ok());
  EXPECT_FALSE(check(good, now_ + 60'000).ok());
  RequestHead other = good;
  other.headers.set("Range", "bytes=5-10");
  EXPECT_FALSE(check(other, now_).ok());
  other.headers.remove("Range");
  EXPECT_FALSE(check(other, now_).ok());
  EXPECT_FALSE(
      presign(kS3Key, kS3Scope, now_, std::chrono::seconds(0), Method::kGet, url_, {}).ok());
  EXPECT_FALSE(
      presign(kS3Key, kS3Scope, now_, std::chrono::hours(24 * 7 + 1), Method::kGet, url_, {}).ok());
}

// The string that Microsoft's page "Authorize with Shared Key" gives for listing a container.
TEST(AzureSignatureTest, StringToSign) {
  const Url url = *Url::parse(
      "https://myaccount.blob.core.windows.net/"
      "mycontainer?restype=container&comp=metadata&timeout=20");
  const Headers headers{{"x-ms-version", "2015-02-21"},
                        {"x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT"}};
  const auto text = azure_string_to_sign("myaccount", "GET", url, headers, 0);
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(*text,
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\n"
            "x-ms-version:2015-02-21\n/myaccount/mycontainer\ncomp:metadata\n"
            "restype:container\ntimeout:20");
  const auto put = azure_string_to_sign("a", "PUT", *Url::parse("http://h/c/b"),
                                        {{"Content-MD5", "m"}, {"If-None-Match", "*"}}, 7);
  EXPECT_EQ(*put, "PUT\n\n\n7\nm\n\n\n\n\n*\n\n\n/a/c/b");
}

TEST(HttpDateTest, BothWays) {
  const int64_t time = 784111777000;  // RFC 9110's own example
  EXPECT_EQ(format_http_date(time), "Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(*parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), time);
  EXPECT_EQ(format_compact_date(time), "19941106T084937Z");
  EXPECT_EQ(*parse_compact_date("19941106T084937Z"), time);
  for (const char* bad : {"", "Sun, 06 Nov 1994 08:49:37", "Sun, 31 Feb 1994 08:49:37 GMT",
                          "Sun, 06 Nox 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT"}) {
    EXPECT_FALSE(parse_http_date(bad).ok()) << bad;
  }
  for (const char* bad : {"", "19941106T084937", "19941306T084937Z", "1994-1106T084937Z"}) {
    EXPECT_FALSE(parse_compact_date(bad).ok()) << bad;
  }
}

TEST(DigestTest, Md5) { EXPECT_EQ(to_hex(md5("abc")), "900150983cd24fb0d6963f7d28e17f72"); }

}  // namespace
}  // namespace qanat::net
