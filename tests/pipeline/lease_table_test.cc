#include "qanat/pipeline/lease_table.h"

#include <gtest/gtest.h>

#include <random>

#include "qanat/base/string.h"
#include "support/seeds.h"

namespace qanat::pipeline {
namespace {

constexpr int64_t kTtl = 100;

Ticket ticket(int number) {
  Ticket ticket;
  ticket.datum_id = str_cat("d", number);
  ticket.sort_key = ticket.datum_id;
  return ticket;
}

std::vector<std::string> ids(const std::vector<const Ticket*>& tickets) {
  std::vector<std::string> ids;
  for (const Ticket* ticket : tickets) ids.push_back(ticket->datum_id);
  return ids;
}

using Ids = std::vector<std::string>;

TEST(LeaseTable, HandsOutInOrderAndOnce) {
  LeaseTable table(kTtl);
  for (int i = 0; i < 4; ++i) table.add(ticket(i), 0);
  table.add(ticket(0), 0);
  EXPECT_EQ(ids(table.lease("a", 3, 0)), (Ids{"d0", "d1", "d2"}));
  EXPECT_EQ(ids(table.lease("b", 3, 0)), (Ids{"d3"}));
  EXPECT_TRUE(table.complete("d1"));
  EXPECT_FALSE(table.complete("d1"));
  EXPECT_EQ(table.leased(), 3u);
}

TEST(LeaseTable, WhatALostWorkerHeldGoesFirstAndAlone) {
  LeaseTable table(kTtl);
  for (int i = 0; i < 4; ++i) table.add(ticket(i), 0);
  table.lease("a", 2, 0);
  EXPECT_EQ(table.release("a").size(), 2u);
  EXPECT_EQ(table.lease("b", 4, 0).size(), 1u);
  EXPECT_EQ(table.lease("c", 4, 0).size(), 1u);
  EXPECT_EQ(ids(table.lease("d", 4, 0)), (Ids{"d2", "d3"}));
}

TEST(LeaseTable, LeasesRunOutUnlessRenewed) {
  LeaseTable table(kTtl);
  table.add(ticket(0), 0);
  table.add(ticket(1), 0);
  table.lease("a", 2, 0);
  EXPECT_TRUE(table.renew("a", {"d0"}, 50).empty());
  EXPECT_EQ(table.expire(100), 1u);
  EXPECT_EQ(ids(table.lease("b", 2, 100)), (Ids{"d1"}));
  EXPECT_EQ(table.renew("a", {"d0", "d1"}, 110), (Ids{"d1"}));
  EXPECT_EQ(table.find("d0")->restarts, 0);
  EXPECT_EQ(table.find("d1")->restarts, 1);
}

TEST(LeaseTable, WhatAWorkerNeverHeardOfWaitsAsBefore) {
  LeaseTable table(kTtl);
  for (int i = 0; i < 3; ++i) table.add(ticket(i), 0);
  table.lease("a", 1, 0);
  table.lease("a", 1, 0);
  table.give_back("a", {"d1"});
  EXPECT_EQ(table.running(), (std::map<std::string, std::string>{{"d0", "a"}}));
  EXPECT_EQ(ids(table.lease("b", 2, 0)), (Ids{"d1", "d2"}));
  table.give_back("a", {"d1"});  // not a's any more
  EXPECT_EQ(table.running().at("d1"), "b");
}

TEST(LeaseTable, ADatumWhoseWorkerWasLostIsAloneWithTheNext) {
  LeaseTable table(kTtl);
  for (int i = 0; i < 4; ++i) table.add(ticket(i), 0);
  EXPECT_EQ(ids(table.lease("lost", 1, 0)), (Ids{"d0"}));
  EXPECT_EQ(ids(table.lease("busy", 1, 0)), (Ids{"d1"}));
  EXPECT_FALSE(table.one_waits_for_a_free_worker());
  table.release("lost");
  EXPECT_TRUE(table.one_waits_for_a_free_worker());
  EXPECT_EQ(ids(table.lease("busy", 1, 0)), (Ids{"d2"})) << "past the one that is to be alone";
  EXPECT_EQ(ids(table.lease("free", 8, 0)), (Ids{"d0"}));
  EXPECT_TRUE(table.lease("free", 8, 0).empty()) << "nothing besides";
  table.complete("d0");
  EXPECT_EQ(ids(table.lease("free", 8, 0)), (Ids{"d3"}));
  table.release("busy");
  EXPECT_TRUE(table.lease("free", 8, 0).empty()) << "not while it holds another";
  table.complete("d3");
  EXPECT_EQ(table.lease("free", 8, 0).size(), 1u);
}

TEST(LeaseTable, MemoryCountsForTheDatumThatWasAlone) {
  LeaseTable table(kTtl);
  table.add(ticket(0), 0);
  table.add(ticket(1), 0);
  table.lease("a", 2, 0);
  table.release("a", true);
  EXPECT_EQ(table.find("d0")->ooms, 0);
  table.lease("a", 1, 0);
  const Ids alone = table.release("a", true);
  ASSERT_EQ(alone.size(), 1u);
  EXPECT_EQ(table.find(alone[0])->ooms, 1);
}

TEST(LeaseTable, AfterARestartWorkersKeepWhatTheyHave) {
  LeaseTable table(kTtl, 50);
  for (int i = 0; i < 3; ++i) table.add(ticket(i), 0);
  table.renew("old", {"d1", "d9"}, 1);  // waiting; not planned yet
  EXPECT_EQ(ids(table.lease("new", 2, 2)), (Ids{"d0", "d2"}));
  table.add(ticket(9), 3);
  EXPECT_EQ(table.running().at("d9"), "old");
  EXPECT_TRUE(table.renew("other", {"d0"}, 4).empty());  // had it before: believed
  EXPECT_EQ(table.renew("new", {"d0", "d2"}, 5), (Ids{"d0"}));
  EXPECT_EQ(table.renew("third", {"d0"}, 6), (Ids{"d0"}));  // once only
  EXPECT_EQ(table.renew("late", {"d2"}, 50), (Ids{"d2"}));  // time is over
}

// Against the obvious model: a map of what each datum's state must be.
TEST(LeaseTable, AgreesWithAModel) {
  for (uint64_t seed = 0; seed < qanat::testing::seed_count(30); ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    LeaseTable table(kTtl);
    std::map<std::string, std::pair<std::string, int64_t>> model;  // id -> worker or "", expiry
    int64_t now = 0;
    int next = 0;
    for (int i = 0; i < 400; ++i) {
      now += static_cast<int64_t>(random() % 15);
      const std::string worker = str_cat("w", random() % 3);
      switch (random() % 6) {
        case 0:
          model[str_cat("d", next)] = {"", 0};
          table.add(ticket(next++), now);
          break;
        case 1:
          for (const Ticket* t : table.lease(worker, 1 + random() % 3, now)) {
            ASSERT_EQ(model.at(t->datum_id).first, "");
            model[t->datum_id] = {worker, now + kTtl};
          }
          break;
        case 2: {
          Ids held;
          for (const auto& [id, state] : model) {
            if (!state.first.empty() && random() % 2) held.push_back(id);
          }
          const Ids lost = table.renew(worker, held, now);
          Ids expected;
          for (const std::string& id : held) {
            if (model[id].first == worker)
              model[id].second = now + kTtl;
            else
              expected.push_back(id);
          }
          ASSERT_EQ(lost, expected);
          break;
        }
        case 3:
          if (!model.empty()) {
            const std::string id =
                std::next(model.begin(), static_cast<ptrdiff_t>(random() % model.size()))->first;
            ASSERT_TRUE(table.complete(id));
            model.erase(id);
          }
          break;
        case 4:
          table.release(worker);
          for (auto& [id, state] : model) {
            if (state.first == worker) state = {"", 0};
          }
          break;
        default:
          table.expire(now);
          for (auto& [id, state] : model) {
            if (!state.first.empty() && state.second <= now) state = {"", 0};
          }
      }
      std::map<std::string, std::string> running;
      for (const auto& [id, state] : model) {
        if (!state.first.empty()) running[id] = state.first;
      }
      ASSERT_EQ(table.running(), running);
      ASSERT_EQ(table.waiting(), model.size() - running.size());
    }
  }
}

}  // namespace
}  // namespace qanat::pipeline
