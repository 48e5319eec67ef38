#include "qanat/object/s3_answers.h"

#include "qanat/base/string.h"
#include "qanat/object/xml.h"

namespace qanat::object {
namespace {

Status expect_root(const XmlElement& root, std::string_view name) {
  if (root.name == name) return ok_status();
  return data_loss(str_cat("the store answers with ", quoted(root.name.substr(0, 64)), " where ",
                           name, " belongs"));
}

S3Error error_of(const XmlElement& root) {
  if (root.name != "Error") return {};
  S3Error error;
  error.code = root.child_text("Code");
  error.message = root.child_text("Message");
  error.region = root.child_text("Region");
  return error;
}

}  // namespace

S3Error parse_s3_error(std::string_view body) {
  const auto root = parse_xml(body);
  return root.ok() ? error_of(*root) : S3Error();
}

Result<ListPage> parse_s3_list(std::string_view body) {
  QANAT_ASSIGN_OR_RETURN(const XmlElement root, parse_xml(body));
  QANAT_RETURN_IF_ERROR(expect_root(root, "ListBucketResult"));
  ListPage page;
  for (const XmlElement& child : root.children) {
    if (child.name != "Contents") continue;
    const XmlElement* key = child.child("Key");
    const auto size = parse_u64(child.child_text("Size"));
    if (key == nullptr || key->text.empty() || !size.ok() || *size > INT64_MAX) {
      return data_loss("the store's list has an entry without key or size");
    }
    page.objects.push_back({key->text, static_cast<int64_t>(*size)});
  }
  const std::string_view truncated = root.child_text("IsTruncated");
  if (truncated == "true") {
    // As it is: some stores give the last key, spaces and all.
    if (const XmlElement* next = root.child("NextContinuationToken")) page.next = next->text;
    if (page.next.empty()) return data_loss("the store's list is cut off and does not go on");
  } else if (truncated != "false") {
    return data_loss("the store's list does not say whether it goes on");
  }
  return page;
}

Result<std::string> parse_s3_upload_id(std::string_view body) {
  QANAT_ASSIGN_OR_RETURN(const XmlElement root, parse_xml(body));
  QANAT_RETURN_IF_ERROR(expect_root(root, "InitiateMultipartUploadResult"));
  const std::string_view id = root.child_text("UploadId");
  if (id.empty()) return data_loss("the store began an upload without an id");
  return std::string(id);
}

Status parse_s3_completed(std::string_view body, S3Error& error) {
  QANAT_ASSIGN_OR_RETURN(const XmlElement root, parse_xml(body));
  error = error_of(root);
  if (!error.code.empty()) return ok_status();
  return expect_root(root, "CompleteMultipartUploadResult");
}

std::string s3_complete_body(const std::vector<UploadedPart>& parts) {
  std::string body = "<CompleteMultipartUpload>";
  for (size_t i = 0; i < parts.size(); ++i) {
    str_append(body, "<Part><PartNumber>", i + 1, "</PartNumber><ETag>", escape_xml(parts[i].tag),
               "</ETag>");
    if (!parts[i].checksum.empty()) {
      str_append(body, "<ChecksumSHA256>", escape_xml(parts[i].checksum), "</ChecksumSHA256>");
    }
    body += "</Part>";
  }
  body += "</CompleteMultipartUpload>";
  return body;
}

}  // namespace qanat::object
