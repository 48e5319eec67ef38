// Answers of object stores: no crash, nothing that grows beyond its input, and text that is written
// comes back.
#include <cstdint>
#include <cstdlib>

#include "qanat/object/azure_service.h"
#include "qanat/object/s3_answers.h"
#include "qanat/object/xml.h"

namespace object = qanat::object;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (const auto root = object::parse_xml(input); root.ok()) {
    if (root->name.empty() || root->name.size() + root->text.size() > size) std::abort();
    const auto again = object::parse_xml("<a>" + object::escape_xml(root->text) + "</a>");
    if (!again.ok() || again->text != root->text) std::abort();
  }
  (void)object::parse_s3_error(input);
  (void)object::parse_s3_upload_id(input);
  object::S3Error error;
  (void)object::parse_s3_completed(input, error);
  for (const auto& page : {object::parse_s3_list(input), object::parse_azure_list(input)}) {
    if (!page.ok()) continue;
    for (const auto& info : page->objects) {
      if (info.key.empty() || info.size < 0) std::abort();
    }
  }
  return 0;
}
