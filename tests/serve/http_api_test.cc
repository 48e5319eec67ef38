#include "qanat/serve/http_api.h"

#include <gtest/gtest.h>

namespace qanat::serve {
namespace {

TEST(HttpApi, HasAHandlerForEveryRouteOfTheTable) {
  State state;
  const HttpApi api(state);
  EXPECT_EQ(api.missing(), std::vector<std::string>());
}

TEST(HttpApi, BearerTokenIsTakenFromItsHeaderAlone) {
  net::RequestHead head;
  EXPECT_EQ(bearer_token(head), "");
  head.headers.set("Authorization", "bearer  abc ");
  EXPECT_EQ(bearer_token(head), "abc");
  head.headers.set("Authorization", "Basic abc");
  EXPECT_EQ(bearer_token(head), "");
}

}  // namespace
}  // namespace qanat::serve
