// The pieces that remote stores are made of: URLs, XML, INI files, credentials, the adaptive limit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "qanat/base/bytes.h"
#include "qanat/base/id.h"
#include "qanat/base/string.h"
#include "qanat/object/adaptive_limit.h"
#include "qanat/object/azure_service.h"
#include "qanat/object/credentials.h"
#include "qanat/object/ini_file.h"
#include "qanat/object/s3_answers.h"
#include "qanat/object/store_url.h"
#include "qanat/object/xml.h"

namespace qanat::object {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(StoreUrlTest, Forms) {
  const auto local = parse_store_url("/var/lib/objects");
  ASSERT_TRUE(local.ok());
  EXPECT_EQ(local->kind, StoreUrl::Kind::kLocal);
  EXPECT_EQ(parse_store_url("file:///a%20b")->path, "/a b");

  const auto s3 = parse_store_url(
      "s3://my-bucket/a/b/?endpoint=http://localhost:9000/&region=eu-1&path_style=false");
  ASSERT_TRUE(s3.ok()) << s3.status().to_string();
  EXPECT_EQ(s3->kind, StoreUrl::Kind::kS3);
  EXPECT_EQ(s3->bucket, "my-bucket");
  EXPECT_EQ(s3->prefix, "a/b/");
  EXPECT_EQ(s3->endpoint->port, 9000);
  EXPECT_EQ(s3->region, "eu-1");
  EXPECT_EQ(s3->path_style, false);
  EXPECT_EQ(parse_store_url("s3://my-bucket")->prefix, "");
  EXPECT_EQ(parse_store_url("gs://my-bucket/x")->kind, StoreUrl::Kind::kGcs);

  const auto azure =
      parse_store_url("azure://account1/container/p?endpoint=http://127.0.0.1:10000/account1");
  ASSERT_TRUE(azure.ok()) << azure.status().to_string();
  EXPECT_EQ(azure->account, "account1");
  EXPECT_EQ(azure->bucket, "container");
  EXPECT_EQ(azure->prefix, "p/");
  EXPECT_EQ(azure->endpoint->path, "/account1");

  for (const auto& url : {*s3, *azure}) {
    EXPECT_EQ(parse_store_url(url.to_string())->to_string(), url.to_string());
  }
}

TEST(StoreUrlTest, RefusesAndShowsNoSecret) {
  for (const char* bad : {"", "s3://", "s3://ab", "s3:///x", "s3://bucket/a//b", "s3://bucket/a b",
                          "ftp://bucket", "s3://bucket?secret=x", "s3://bucket?endpoint=ftp://x",
                          "s3://bucket?endpoint=http://h/path", "s3://bucket?region=a/b",
                          "s3://bucket?path_style=1", "gs://bucket?region=x", "azure://account",
                          "azure:///container", "file://relative", "s3://bucket?checksum=crc"}) {
    EXPECT_EQ(parse_store_url(bad).code(), Code::kInvalidArgument) << bad;
  }
  const Status status = parse_store_url("s3://AKIAKEY:topsecret@bucket").status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_THAT(status.to_string(), Not(HasSubstr("topsecret")));
}

TEST(XmlTest, ReadsElementsAndText) {
  const auto root = parse_xml(
      "\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!-- c --><a:Root xmlns:a=\"http://x\" b='1>2'> <K>x "
      "&lt;&amp;&#65;"
      "&#x1F600;</K><Empty/><K>2</K><D><![CDATA[<raw>]]></D></a:Root>\n");
  ASSERT_TRUE(root.ok()) << root.status().to_string();
  EXPECT_EQ(root->name, "Root");
  EXPECT_EQ(root->child_text("K"), "x <&A\xf0\x9f\x98\x80");
  EXPECT_EQ(root->children.size(), 4u);
  EXPECT_EQ(root->child_text("D"), "<raw>");
  EXPECT_EQ(root->child("None"), nullptr);
  EXPECT_EQ(parse_xml(str_cat("<a>", escape_xml("<&>\"\r"), "</a>"))->text, "<&>\"\r");
}

TEST(XmlTest, RefusesTheRest) {
  for (const char* bad :
       {"", "text", "<a>", "<a></b>", "<a/><b/>", "<a/>x", "<a b></a>", "<a b=c/>", "<a>&x;</a>",
        "<a>&#0;</a>", "<a>&#xD800;</a>", "<a>&#99999999;</a>", "<a>&lt</a>", "<!DOCTYPE a><a/>",
        "<a><![CDATA[x</a>", "<a", "<a:/>", "< a/>", "<a><!-- </a>"}) {
    EXPECT_EQ(parse_xml(bad).code(), Code::kDataLoss) << bad;
  }
  std::string deep;
  for (int i = 0; i < 40; ++i) deep += "<a>";
  EXPECT_FALSE(parse_xml(deep).ok());
}

TEST(S3AnswersTest, Lists) {
  const auto page = parse_s3_list(
      "<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>a/1</Key><Size>5</Size>"
      "</Contents><NextContinuationToken>t</NextContinuationToken></ListBucketResult>");
  ASSERT_TRUE(page.ok());
  EXPECT_EQ(page->objects[0].key, "a/1");
  EXPECT_EQ(page->objects[0].size, 5);
  EXPECT_EQ(page->next, "t");
  for (const char* bad :
       {"<ListBucketResult/>", "<Error/>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key></Contents>"
        "</ListBucketResult>",
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key><Size>-1</Size>"
        "</Contents></ListBucketResult>"}) {
    EXPECT_FALSE(parse_s3_list(bad).ok()) << bad;
  }
  const auto blobs = parse_azure_list(
      "<EnumerationResults><Blobs><Blob><Name>x</Name><Properties><Content-Length>7"
      "</Content-Length></Properties></Blob></Blobs><NextMarker/></EnumerationResults>");
  ASSERT_TRUE(blobs.ok());
  EXPECT_EQ(blobs->objects[0].size, 7);
  EXPECT_EQ(blobs->next, "");
  EXPECT_FALSE(parse_azure_list("<EnumerationResults/>").ok());
}

TEST(S3AnswersTest, WhereAListGoesOnIsKeptAsItIs) {
  const auto page = parse_s3_list(
      "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken> a&amp;b &#10;"
      "</NextContinuationToken></ListBucketResult>");
  ASSERT_TRUE(page.ok());
  EXPECT_EQ(page->next, " a&b \n");
  const auto blobs = parse_azure_list(
      "<EnumerationResults><Blobs><Blob><Name>folder</Name><Properties><ResourceType>directory"
      "</ResourceType><Content-Length>0</Content-Length></Properties></Blob><Blob><Name>folder/x"
      "</Name><Properties><ResourceType>file</ResourceType><Content-Length>7</Content-Length>"
      "</Properties></Blob></Blobs><NextMarker> m </NextMarker></EnumerationResults>");
  ASSERT_TRUE(blobs.ok());
  ASSERT_EQ(blobs->objects.size(), 1u);
  EXPECT_EQ(blobs->objects[0].key, "folder/x");
  EXPECT_EQ(blobs->next, " m ");
}

TEST(IniFileTest, Reads) {
  const auto file = parse_ini(
      "# c\n[default]\r\nAWS_Access_Key_Id = A=B\r\n; c\ns3 =\n  nested = 1\n[ profile x "
      "]\na=1\na=2\n");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->at("default").at("aws_access_key_id"), "A=B");
  EXPECT_FALSE(file->at("default").contains("nested"));
  EXPECT_EQ(file->at("profile x").at("a"), "2");
  for (const char* bad : {"a=1", "[x\n", "[x]\nsecretvalue\n"}) {
    const Status status = parse_ini(bad).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << bad;
    EXPECT_THAT(status.to_string(), Not(HasSubstr("secretvalue")));
  }
}

class CredentialsTest : public ::testing::Test {
 protected:
  CredentialsTest() : folder_(str_cat(::testing::TempDir(), "/qanat-credentials-", random_id())) {
    std::filesystem::create_directories(folder_ + "/.aws");
    environment_["HOME"] = folder_;
  }
  ~CredentialsTest() override { std::filesystem::remove_all(folder_); }
  Environment environment() {
    return [this](const std::string& name) {
      auto found = environment_.find(name);
      return found == environment_.end() ? std::string() : found->second;
    };
  }
  void write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
  }
  const std::string folder_;
  std::map<std::string, std::string> environment_;
  ManualClock clock_;
};

TEST_F(CredentialsTest, EnvironmentBeforeFiles) {
  write(".aws/credentials",
        "[default]\naws_access_key_id=F\naws_secret_access_key=fs\n[other]\naws_access_key_id=O\n"
        "aws_secret_access_key=os\naws_session_token=ot\n");
  write(".aws/config", "[default]\nregion=r1\n[profile other]\nregion=r2\nendpoint_url=http://h\n");
  EXPECT_EQ(aws_credentials(environment(), clock_)->key()->id, "F");
  EXPECT_EQ(aws_settings(environment())->region, "r1");
  environment_["AWS_PROFILE"] = "other";
  EXPECT_EQ(aws_credentials(environment(), clock_)->key()->session_token, "ot");
  EXPECT_EQ(aws_settings(environment())->region, "r2");
  EXPECT_EQ(aws_settings(environment())->endpoint_url, "http://h");
  environment_["AWS_ACCESS_KEY_ID"] = "E";
  environment_["AWS_SECRET_ACCESS_KEY"] = "es";
  environment_["AWS_REGION"] = "r3";
  const auto key = aws_credentials(environment(), clock_)->key();
  EXPECT_EQ(key->id, "E");
  EXPECT_EQ(key->session_token, "");
  EXPECT_EQ(aws_settings(environment())->region, "r3");
}

TEST_F(CredentialsTest, FilesAreReadAgain) {
  write(".aws/credentials", "[default]\naws_access_key_id=1\naws_secret_access_key=s\n");
  auto keys = aws_credentials(environment(), clock_);
  const auto first = *keys->key();
  write(".aws/credentials", "[default]\naws_access_key_id=2\naws_secret_access_key=s\n");
  EXPECT_EQ(keys->key()->id, "1");
  clock_.advance_ms(61'000);
  EXPECT_EQ(keys->key()->id, "2");
  EXPECT_TRUE(keys->refused(fingerprint(first)));
  EXPECT_FALSE(keys->refused(fingerprint(*keys->key())));
  std::filesystem::remove(folder_ + "/.aws/credentials");
  clock_.advance_ms(61'000);
  EXPECT_EQ(keys->key()->id, "2");  // while there is nothing better
}

TEST_F(CredentialsTest, GoogleAndAzure) {
  EXPECT_EQ(gcs_credentials(environment(), clock_)->key().code(), Code::kFailedPrecondition);
  write(".boto", "[Credentials]\ngs_access_key_id = GOOG1\ngs_secret_access_key = gs\n");
  EXPECT_EQ(gcs_credentials(environment(), clock_)->key()->id, "GOOG1");

  EXPECT_EQ(azure_credentials(environment(), "acc").code(), Code::kFailedPrecondition);
  environment_["AZURE_STORAGE_SAS_TOKEN"] = "?sv=1&sig=x";
  EXPECT_EQ(azure_credentials(environment(), "acc")->sas, "sv=1&sig=x");
  environment_["AZURE_STORAGE_KEY"] = to_base64("key");
  EXPECT_EQ(azure_credentials(environment(), "acc")->key->key, "key");
  environment_["AZURE_STORAGE_ACCOUNT"] = "other";
  EXPECT_EQ(azure_credentials(environment(), "acc").code(), Code::kFailedPrecondition);
  environment_["AZURE_STORAGE_CONNECTION_STRING"] =
      "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=a2V5Mg==;"
      "EndpointSuffix=core.windows.net";
  const auto found = azure_credentials(environment(), "acc");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->key->key, "key2");
  EXPECT_EQ(found->endpoint, "https://acc.blob.core.windows.net");
  EXPECT_EQ(azure_credentials(environment(), "else").code(), Code::kFailedPrecondition);
}

TEST(AdaptiveLimitTest, ThrottlingLowersAndSuccessRaises) {
  AdaptiveLimit limit(16);
  const net::CancelSignal never;
  const auto soon = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  const auto one = [&](AdaptiveLimit::Outcome outcome) {
    ASSERT_TRUE(limit.acquire(soon, never).ok());
    limit.release(outcome);
  };
  one(AdaptiveLimit::Outcome::kThrottled);
  EXPECT_EQ(limit.limit(), 8);
  one(AdaptiveLimit::Outcome::kThrottled);  // of the same moment
  EXPECT_EQ(limit.limit(), 8);
  for (int i = 0; i < 200; ++i) one(AdaptiveLimit::Outcome::kSuccess);
  EXPECT_EQ(limit.limit(), 16);
}

TEST(AdaptiveLimitTest, WaitsForAPlaceUntilTheDeadline) {
  AdaptiveLimit limit(1);
  const net::CancelSignal never;
  const auto now = [] { return std::chrono::steady_clock::now(); };
  ASSERT_TRUE(limit.acquire(now() + std::chrono::seconds(10), never).ok());
  EXPECT_EQ(limit.acquire(now() + std::chrono::milliseconds(20), never).code(),
            Code::kDeadlineExceeded);
  net::CancelSignal cancel;
  cancel.cancel();
  EXPECT_EQ(limit.acquire(now() + std::chrono::seconds(10), cancel).code(), Code::kCancelled);
  std::thread waiting(
      [&] { EXPECT_TRUE(limit.acquire(now() + std::chrono::seconds(10), never).ok()); });
  limit.release(AdaptiveLimit::Outcome::kSuccess);
  waiting.join();
  limit.release(AdaptiveLimit::Outcome::kSuccess);
  const auto pause = now() + std::chrono::milliseconds(50);
  limit.pause_until(pause);
  ASSERT_TRUE(limit.acquire(now() + std::chrono::seconds(10), never).ok());
  EXPECT_GE(now(), pause);
}

}  // namespace
}  // namespace qanat::object
