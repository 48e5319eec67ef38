// Any bytes as each record of versions: no crash, and what is read reads the same again.
#include <cstdint>
#include <cstdlib>

#include "qanat/version/records.h"

namespace {

template <class Record>
void check(std::string_view bytes) {
  const auto record = qanat::version::decode<Record>("key", bytes);
  if (!record.ok()) return;
  const std::string text = qanat::version::encode(*record);
  const auto again = qanat::version::decode<Record>("key", text);
  if (!again.ok() || qanat::version::encode(*again) != text) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  check<qanat::version::ProjectRecord>(bytes);
  check<qanat::version::RepoRecord>(bytes);
  check<qanat::version::BranchRecord>(bytes);
  check<qanat::version::CommitRecord>(bytes);
  check<qanat::version::WaveRecord>(bytes);
  check<qanat::version::HeadEntry>(bytes);
  check<qanat::version::SessionRecord>(bytes);
  check<qanat::version::TrashRecord>(bytes);
  return 0;
}
