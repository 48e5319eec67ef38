#include "qanat/worker/datums_in_hand.h"

#include <gtest/gtest.h>

namespace qanat::worker {
namespace {

TEST(DatumsInHand, ACancellationIsForOneJob) {
  DatumsInHand in_hand;
  Cancellation cancel;
  in_hand.add("old", "d");
  in_hand.start_running("old", "d", &cancel);
  in_hand.add("new", "d");  // the same datum, of the next job
  in_hand.cancel({{"old", {"d", "unknown"}}});
  EXPECT_TRUE(cancel.cancelled());
  EXPECT_TRUE(in_hand.cancelled("old", "d"));
  EXPECT_FALSE(in_hand.cancelled("new", "d"));
  ASSERT_EQ(in_hand.held().size(), 1u);
  EXPECT_EQ(in_hand.held()[0].job, "new");
}

}  // namespace
}  // namespace qanat::worker
