#include "qanat/net/http.h"

#include <gtest/gtest.h>

#include <random>

#include "qanat/net/address.h"

namespace qanat::net {
namespace {

TEST(HeadersTest, NamesCompareWithoutCase) {
  Headers headers{{"Content-Type", "a"}, {"X", "1"}, {"x", "2"}};
  EXPECT_EQ(headers.get("content-TYPE"), "a");
  EXPECT_EQ(headers.get("x"), "1");
  EXPECT_EQ(headers.get("none"), "");
  headers.set("X", "3");
  EXPECT_EQ(headers.get("x"), "3");
  EXPECT_EQ(headers.fields().size(), 2U);
  headers.add("Connection", "Keep-Alive, Upgrade");
  EXPECT_TRUE(headers.has_token("connection", "upgrade"));
  EXPECT_FALSE(headers.has_token("connection", "close"));
}

TEST(HeadersTest, ValuesWithLineEndsAreInvalid) {
  EXPECT_TRUE(valid_header_value("a b\tc\xc3\xa9"));
  EXPECT_FALSE(valid_header_value("a\r\nB: c"));
  EXPECT_FALSE(valid_header_name("A B"));
  EXPECT_FALSE(valid_header_name(""));
}

TEST(PercentTest, RoundTripsAnyBytes) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::string bytes(random() % 40, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    EXPECT_EQ(*percent_decode(encode_path_segment(bytes)), bytes);
    EXPECT_EQ(*percent_decode(encode_path(bytes)), bytes);
    Query query;
    query.add(bytes, bytes);
    Query back = *Query::parse(query.encode());
    EXPECT_EQ(back.parameters(), query.parameters());
  }
}

TEST(PercentTest, RefusesBrokenEscapes) {
  for (const char* text : {"%", "%2", "%zz", "a%", "%%20"}) EXPECT_FALSE(percent_decode(text).ok());
  EXPECT_EQ(*percent_decode("a+b%20c"), "a+b c");
}

TEST(QueryTest, TypedParameters) {
  Query query = *Query::parse("a=1&b&c=x+y%26&a=2&d=false&e=maybe");
  EXPECT_EQ(query.get("a"), "1");
  EXPECT_EQ(query.get_all("a"), (std::vector<std::string>{"1", "2"}));
  EXPECT_EQ(query.get("c"), "x y&");
  EXPECT_TRUE(*query.get_bool("b"));
  EXPECT_FALSE(*query.get_bool("d"));
  EXPECT_FALSE(*query.get_bool("absent"));
  EXPECT_FALSE(query.get_bool("e").ok());
  EXPECT_EQ(*query.get_uint("a", 9), 1U);
  EXPECT_EQ(*query.get_uint("z", 9), 9U);
  EXPECT_FALSE(query.get_uint("c", 9).ok());
}

TEST(UrlTest, Parses) {
  Url url = *Url::parse("HTTP://Example.COM:8080/a/b?c=d#e");
  EXPECT_EQ(url.scheme, "http");
  EXPECT_EQ(url.host, "example.com");
  EXPECT_EQ(url.port, 8080);
  EXPECT_EQ(url.target(), "/a/b?c=d");
  EXPECT_EQ(url.authority(), "example.com:8080");
  EXPECT_EQ(Url::parse("https://[::1]/")->authority(), "[::1]");
  EXPECT_EQ(Url::parse("https://h")->port, 443);
  EXPECT_EQ(Url::parse("unix:/run/x.sock")->unix_socket, "/run/x.sock");
}

TEST(UrlTest, Refuses) {
  for (const char* text : {"", "host", "ftp://h/", "http://", "http://user:pw@h/", "http://h:0/",
                           "http://h:99999/", "http://h:x/", "http://[::1", "http://[zz]/",
                           "http://a b/", "http://h/\x01", "unix:relative", "http://h\\@x/"}) {
    EXPECT_FALSE(Url::parse(text).ok()) << text;
  }
}

TEST(UrlTest, Resolves) {
  Url base = *Url::parse("http://h/a/b/c?q");
  auto resolved = [&](const char* reference) { return base.resolve(reference)->to_string(); };
  EXPECT_EQ(resolved("d"), "http://h/a/b/d");
  EXPECT_EQ(resolved("../d?x"), "http://h/a/d?x");
  EXPECT_EQ(resolved("/../../d/."), "http://h/d/");
  EXPECT_EQ(resolved("?z"), "http://h/a/b/c?z");
  EXPECT_EQ(resolved("//o:81/x"), "http://o:81/x");
  EXPECT_EQ(resolved("https://o/x"), "https://o/x");
}

TEST(RangeTest, AllForms) {
  auto check = [](const char* header, uint64_t size, ByteRange::Kind kind, uint64_t first,
                  uint64_t length) {
    ByteRange range = parse_range(header, size);
    EXPECT_EQ(range.kind, kind) << header;
    EXPECT_EQ(range.first, first) << header;
    EXPECT_EQ(range.length, length) << header;
  };
  using Kind = ByteRange::Kind;
  check("bytes=0-9", 100, Kind::kPart, 0, 10);
  check("bytes=90-", 100, Kind::kPart, 90, 10);
  check("bytes=-5", 100, Kind::kPart, 95, 5);
  check("bytes=-500", 100, Kind::kPart, 0, 100);
  check("bytes=50-1000", 100, Kind::kPart, 50, 50);
  check("bytes=100-", 100, Kind::kUnsatisfiable, 0, 0);
  check("bytes=-0", 100, Kind::kUnsatisfiable, 0, 0);
  check("bytes=0-", 0, Kind::kUnsatisfiable, 0, 0);
  for (const char* ignored : {"", "items=0-1", "bytes=", "bytes=a-b", "bytes=5-2", "bytes=0-1,3-4",
                              "bytes=99999999999999999999-"}) {
    check(ignored, 100, Kind::kWhole, 0, 100);
  }
  EXPECT_EQ(content_range(parse_range("bytes=1-2", 10), 10), "bytes 1-2/10");
  EXPECT_EQ(content_range(parse_range("bytes=10-", 10), 10), "bytes */10");
}

TEST(AddressTest, PublicOnly) {
  AddressPolicy policy = public_only();
  for (const char* text : {"127.0.0.1",
                           "10.1.2.3",
                           "172.16.0.1",
                           "172.31.255.255",
                           "192.168.1.1",
                           "169.254.169.254",
                           "100.64.0.1",
                           "0.0.0.0",
                           "224.0.0.1",
                           "255.255.255.255",
                           "198.18.0.1",
                           "::",
                           "::1",
                           "fc00::1",
                           "fd12::1",
                           "fe80::1",
                           "ff02::1",
                           "::ffff:127.0.0.1",
                           "::ffff:10.0.0.1",
                           "::127.0.0.1",
                           "64:ff9b::10.0.0.1",
                           "2002:7f00:1::",
                           "2001:db8::1"}) {
    auto address = IpAddress::parse(text);
    ASSERT_TRUE(address) << text;
    EXPECT_EQ(policy(*address).code(), Code::kPermissionDenied) << text;
  }
  for (const char* text : {"8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111",
                           "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"}) {
    EXPECT_TRUE(policy(*IpAddress::parse(text)).ok()) << text;
  }
  for (const char* text : {"127.1", "0x7f.0.0.1", "localhost", "", "1.2.3.4.5", "fe80::1%eth0"}) {
    EXPECT_FALSE(IpAddress::parse(text)) << text;
  }
}

TEST(TargetTest, Splits) {
  std::string path;
  std::string query;
  EXPECT_TRUE(split_target("/a%20b?c=d?e", path, query).ok());
  EXPECT_EQ(path, "/a%20b");
  EXPECT_EQ(query, "c=d?e");
  EXPECT_TRUE(split_target("http://h/x?y", path, query).ok());
  EXPECT_EQ(path, "/x");
  EXPECT_FALSE(split_target("*", path, query).ok());
  EXPECT_FALSE(split_target("/a b", path, query).ok());
}

}  // namespace
}  // namespace qanat::net
