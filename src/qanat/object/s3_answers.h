// What S3 answers with, as XML: read strictly, since it comes from outside. Also its one request
// with a body of its own. Pure functions; errors are kDataLoss.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/object/blob_service.h"

namespace qanat::object {

struct S3Error {
  std::string code;  // "NoSuchKey"; "" if the body is no error
  std::string message;
  std::string region;  // where the bucket is, if it says
};
// Of any body; what is no error of S3 gives an empty code.
S3Error parse_s3_error(std::string_view body);

// ListBucketResult of ListObjectsV2.
Result<ListPage> parse_s3_list(std::string_view body);
// InitiateMultipartUploadResult: the upload's id.
Result<std::string> parse_s3_upload_id(std::string_view body);
// CompleteMultipartUploadResult. S3 may answer 200 and an error in the body: that is in `error`.
Status parse_s3_completed(std::string_view body, S3Error& error);

std::string s3_complete_body(const std::vector<UploadedPart>& parts);

}  // namespace qanat::object
