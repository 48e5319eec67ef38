#include "qanat/pipeline/journal.h"

#include "qanat/base/bytes.h"

namespace qanat::pipeline {
namespace {

constexpr uint8_t kNodeVersion = 1;
constexpr uint8_t kJournalType = 7;

}  // namespace

std::string encode_journal_node(const Hash& before, const std::vector<JournalEntry>& entries) {
  std::string out;
  put_u8(out, kNodeVersion);
  put_u8(out, kJournalType);
  out += before.view();
  put_varint(out, entries.size());
  for (const JournalEntry& entry : entries) {
    put_bytes(out, entry.sort_key);
    put_bytes(out, entry.row);
  }
  return out;
}

Result<JournalNode> parse_journal_node(std::string_view bytes) {
  Reader in(bytes);
  QANAT_ASSIGN_OR_RETURN(const uint8_t version, in.u8());
  QANAT_ASSIGN_OR_RETURN(const uint8_t type, in.u8());
  if (version != kNodeVersion || type != kJournalType) return data_loss("not a journal node");
  JournalNode node;
  QANAT_ASSIGN_OR_RETURN(const std::string_view before, in.raw(32));
  QANAT_ASSIGN_OR_RETURN(node.before, Hash::from_bytes(before));
  QANAT_ASSIGN_OR_RETURN(const uint64_t count, in.varint());
  for (uint64_t i = 0; i < count; ++i) {
    QANAT_ASSIGN_OR_RETURN(const std::string_view key, in.bytes());
    QANAT_ASSIGN_OR_RETURN(const std::string_view row, in.bytes());
    node.entries.push_back({std::string(key), std::string(row)});
  }
  QANAT_RETURN_IF_ERROR(in.expect_end());
  return node;
}

Status read_journal(content::BlobReader& reader, Hash head,
                    const std::function<Status(const JournalEntry&)>& visit) {
  while (!head.is_zero()) {
    QANAT_ASSIGN_OR_RETURN(const content::Blob blob, reader.read({content::BlobKind::kNode, head}));
    QANAT_ASSIGN_OR_RETURN(const JournalNode node, parse_journal_node(*blob));
    for (const JournalEntry& entry : node.entries) QANAT_RETURN_IF_ERROR(visit(entry));
    head = node.before;
  }
  return ok_status();
}

}  // namespace qanat::pipeline
