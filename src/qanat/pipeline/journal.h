// The journal of a running job: the reports of its datums, in the order in which they became
// durable.
//
// A chain of nodes in the content store, newest first; the JobRecord names the newest. A report is
// acknowledged when the transaction that moves the JobRecord's journal head is durable, so what a
// restarted server reads here is exactly what was acknowledged.
//
// Node (docs/formats.md, "Journal"): u8 version 1, u8 type 7, 32 hash of the node before (zeros:
// none), varint count, then for each report: bytes sort key, bytes row (datum_table.h).
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qanat/base/hash.h"
#include "qanat/base/status.h"
#include "qanat/content/blob_io.h"

namespace qanat::pipeline {

struct JournalEntry {
  std::string sort_key;
  std::string row;  // encoded
};

// The node's bytes; `before` is zero for the first.
std::string encode_journal_node(const Hash& before, const std::vector<JournalEntry>& entries);
struct JournalNode {
  Hash before;
  std::vector<JournalEntry> entries;
};
Result<JournalNode> parse_journal_node(std::string_view bytes);

// Calls `visit` with every entry, from the newest node back to the first. A zero `head` is the
// empty journal.
Status read_journal(content::BlobReader& reader, Hash head,
                    const std::function<Status(const JournalEntry&)>& visit);

}  // namespace qanat::pipeline
