#include "qanat/cli/transfer.h"

#include "qanat/api/files.h"
#include "qanat/base/name.h"

namespace qanat::cli {
namespace {

Parameters repo_parameters(const api::Address& address) {
  return {{"project", address.project}, {"repo", address.repo}};
}

Parameters edit_query(const api::Address& address, const std::string& description) {
  Parameters query = {{"ref", address.ref.to_string()}};
  if (!description.empty()) query["description"] = description;
  return query;
}

}  // namespace

Status send_edits(Cli& cli, const api::Address& address, const std::string& description,
                  const std::function<Status(api::FileStreamWriter&)>& write) {
  QANAT_RETURN_IF_ERROR(check_description(description));
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  api::FileStreamSource source([&](api::FileStreamWriter& out) -> Result<bool> {
    QANAT_RETURN_IF_ERROR(write(out));
    return false;
  });
  return server
      ->upload(
          "edit_files", repo_parameters(address), edit_query(address, description),
          [&source](char* buffer, size_t size) { return source.read(buffer, size); },
          api::kFileStreamType)
      .status();
}

}  // namespace qanat::cli
