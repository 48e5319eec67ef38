#include "qanat/api/address.h"

#include <gtest/gtest.h>

namespace qanat::api {
namespace {

const std::string kId = "0123456789abcdef0123456789abcdef";

TEST(RefTest, Parses) {
  EXPECT_EQ(*parse_ref("master"), (Ref{"master", false, 0, 0}));
  EXPECT_EQ(*parse_ref(kId), (Ref{kId, true, 0, 0}));
  EXPECT_EQ(parse_ref("master^")->back, 1U);
  EXPECT_EQ(parse_ref("master^^")->back, 2U);
  EXPECT_EQ(parse_ref("master^2")->back, 2U);
  EXPECT_EQ(parse_ref("master~3^")->back, 4U);
  EXPECT_EQ(parse_ref("master.3")->from_start, 3U);
  EXPECT_EQ(parse_ref("master^^")->to_string(), "master^2");
  EXPECT_EQ(parse_ref(kId + "^")->to_string(), kId + "^");
}

TEST(RefTest, Refuses) {
  for (const std::string& text :
       {std::string(), std::string("^"), std::string("a b"), std::string("a.0"), std::string("a."),
        std::string("a.2^"), std::string("a^2.3"), std::string("a^99999999999999999999"),
        kId + ".1", std::string("a/b")}) {
    EXPECT_EQ(parse_ref(text).code(), Code::kInvalidArgument) << text;
  }
}

TEST(AddressTest, Parses) {
  Address all = *parse_address("sales/orders@master^2:/2026/a@b:c.csv");
  EXPECT_EQ(all.project, "sales");
  EXPECT_EQ(all.repo, "orders");
  EXPECT_EQ(all.ref.back, 2U);
  EXPECT_EQ(all.path, "2026/a@b:c.csv");
  EXPECT_EQ(all.to_string(), "sales/orders@master^2:/2026/a@b:c.csv");
  Address bare = *parse_address("orders");
  EXPECT_EQ(bare.project, "default");
  EXPECT_FALSE(bare.has_ref);
  EXPECT_FALSE(bare.has_path);
  EXPECT_EQ(bare.ref.name, "master");
  Address path = *parse_address("orders:a/b/");
  EXPECT_FALSE(path.has_ref);
  EXPECT_EQ(path.path, "a/b/");
  Address root = *parse_address("orders@" + kId + ":/");
  EXPECT_TRUE(root.ref.is_commit);
  EXPECT_TRUE(root.has_path);
  EXPECT_EQ(root.path, "");
  EXPECT_EQ(parse_address("orders@master:/*.{csv,json}")->path, "*.{csv,json}");
}

TEST(AddressTest, Refuses) {
  for (const char* text : {"", "@master", "a/b/c@master", "or ders", "orders@", "orders@:/x",
                           "/orders", "p/", "orders@master@x"}) {
    EXPECT_EQ(parse_address(text).code(), Code::kInvalidArgument) << text;
  }
}

TEST(JobAddressTest, ParsesAndRefuses) {
  JobAddress job = *parse_job_address("p/standardize@" + kId);
  EXPECT_EQ(job.project, "p");
  EXPECT_EQ(job.pipeline, "standardize");
  EXPECT_EQ(job.to_string(), "p/standardize@" + kId);
  EXPECT_FALSE(parse_job_address("standardize").ok());
  EXPECT_FALSE(parse_job_address("standardize@master").ok());
  EXPECT_FALSE(parse_job_address("-a@" + kId).ok());
}

TEST(NameAddressTest, TakesNamesOnly) {
  EXPECT_EQ(parse_name_address("p/orders")->repo, "orders");
  EXPECT_FALSE(parse_name_address("orders@master").ok());
  EXPECT_FALSE(parse_name_address("orders:/x").ok());
}

}  // namespace
}  // namespace qanat::api
