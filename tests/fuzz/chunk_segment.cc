// Any bytes as a segment, and as each of its parts. Checksums would stop a fuzzer at the door, so
// the parts are also tried with the right checksum: no read past the end, and what is accepted
// reads back as itself.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "qanat/base/bytes.h"
#include "qanat/base/hash.h"
#include "qanat/chunk/segment.h"

using namespace qanat;         // NOLINT(google-build-using-namespace)
using namespace qanat::chunk;  // NOLINT(google-build-using-namespace)

namespace {

void walk(std::string_view entries) {
  std::string rebuilt;
  SegmentEntry entry;
  for (std::string_view rest = entries; next_segment_entry(&rest, &entry);) {
    auto found = find_in_segment_block(entries, entry.key);
    if (!found || *found != entry.value) std::abort();
    put_bytes(rebuilt, entry.key);
    put_bytes(rebuilt, entry.value);
  }
  if (rebuilt != entries) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (Result<SegmentView> view = SegmentView::open(input); view.ok()) {
    Status status = view->for_each([&](const SegmentEntry& entry) -> Status {
      auto found = view->find(entry.key);
      if (!found || *found != entry.value) std::abort();
      return ok_status();
    });
    if (!status.ok()) std::abort();
  }

  std::string block(input);
  put_u64(block, hash64(input));
  if (Result<std::string_view> entries = check_segment_block(block); entries.ok()) walk(*entries);

  SegmentFooter footer;
  footer.index_length = size;
  footer.digest = sha256(input).view();
  // The index says how many blocks there are and how long; try what it says.
  for (uint32_t blocks = 0; blocks < 4; ++blocks) {
    footer.blocks = blocks;
    footer.data_length = 100 * blocks;
    Result<SegmentBlocks> index = SegmentBlocks::parse(footer, input);
    if (!index.ok()) continue;
    for (size_t i = 0; i < index->size(); ++i) {
      if (index->find(index->last_key(i)) != i) std::abort();
    }
  }

  std::string tail(input.substr(0, 80));
  tail.resize(80);
  put_u64(tail, hash64(tail));
  tail += "QNTSEGM1";
  (void)parse_segment_footer(tail, size >= 8 ? load_u64(input.data()) : size);

  // A segment made of the input's pieces.
  std::vector<std::string_view> keys;
  std::string bytes;
  SegmentWriter writer([&](std::string_view piece) -> Status {
    bytes += piece;
    return ok_status();
  });
  for (size_t at = 0; at + 1 < size; at += 1 + data[at] % 16) {
    std::string_view key = input.substr(at, 1 + data[at] % 16);
    if (writer.add(key, input.substr(0, at)).ok()) keys.push_back(key);
  }
  if (!writer.finish().ok()) std::abort();
  Result<SegmentView> view = SegmentView::open(bytes);
  if (!view.ok()) std::abort();
  for (std::string_view key : keys) {
    if (!view->find(key)) std::abort();
  }
  return 0;
}
