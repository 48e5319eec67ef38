#include "qanat/pipeline/journal.h"

#include <gtest/gtest.h>

#include "content/memory_blobs.h"

namespace qanat::pipeline {
namespace {

using content::must;

TEST(Journal, IsReadFromTheNewestBack) {
  content::MemoryBlobs blobs;
  Hash head;
  for (int i = 0; i < 3; ++i) {
    const std::vector<JournalEntry> entries = {{std::string(1, static_cast<char>('a' + i)), "row"},
                                               {std::string("\0x", 2), std::string(300, 'r')}};
    head =
        must(blobs.add(content::BlobKind::kNode, encode_journal_node(head, entries), nullptr)).hash;
  }
  std::vector<std::string> keys;
  must(read_journal(blobs, head, [&](const JournalEntry& entry) {
    keys.push_back(entry.sort_key);
    return ok_status();
  }));
  const std::string other("\0x", 2);
  EXPECT_EQ(keys, (std::vector<std::string>{"c", other, "b", other, "a", other}));
  must(read_journal(blobs, Hash(),
                    [](const JournalEntry&) -> Status { return internal_error("there is none"); }));
}

TEST(Journal, DamageIsAnError) {
  const std::string node = encode_journal_node(Hash(), {{"key", "row"}});
  EXPECT_TRUE(parse_journal_node(node).ok());
  for (size_t length = 0; length < node.size(); ++length)
    EXPECT_FALSE(parse_journal_node(node.substr(0, length)).ok()) << length;
  EXPECT_FALSE(parse_journal_node(node + "x").ok());
  for (const size_t at : {0u, 1u}) {
    std::string changed = node;
    ++changed[at];
    EXPECT_EQ(parse_journal_node(changed).status().code(), Code::kDataLoss);
  }
}

}  // namespace
}  // namespace qanat::pipeline
