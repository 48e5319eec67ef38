// Any bytes as a journal node: no crash, and what is accepted has one spelling.
#include <cstdint>
#include <cstdlib>

#include "qanat/pipeline/journal.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto node = qanat::pipeline::parse_journal_node(bytes);
  if (node.ok() && qanat::pipeline::encode_journal_node(node->before, node->entries) != bytes) {
    std::abort();
  }
  return 0;
}
