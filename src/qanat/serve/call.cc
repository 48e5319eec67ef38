#include "qanat/serve/call.h"

#include "qanat/api/error.h"
#include "qanat/base/string.h"

namespace qanat::serve {
namespace {

constexpr uint64_t kMaxPage = 1000;

}  // namespace

std::string Call::path(std::string_view name) const {
  const auto found = match_.parameters.find(name);
  return found == match_.parameters.end() ? "" : found->second;
}

Result<std::string> Call::required(std::string_view name) const {
  const auto value = query_.get(name);
  if (!value) return invalid_argument(str_cat("the query parameter ", name, " is missing"));
  return *value;
}

Result<version::PageRequest> Call::page() const {
  version::PageRequest page;
  QANAT_ASSIGN_OR_RETURN(const uint64_t limit, query_.get_uint("limit", 100));
  page.limit = static_cast<int64_t>(std::clamp<uint64_t>(limit, 1, kMaxPage));
  page.token = query_or("page");
  return page;
}

std::shared_ptr<net::EventStream> Call::stream(net::StreamOptions options) {
  auto stream = response.stream(std::move(options));
  state.tokens->end_with_token(*caller_, stream);
  return stream;
}

Status Call::answer_json(const std::string& text) {
  response.headers().set("Qanat-Revision", std::to_string(state.meta->current_revision()));
  return response.send(route().success, text, "application/json");
}

Status Call::answer_empty() {
  response.headers().set("Qanat-Revision", std::to_string(state.meta->current_revision()));
  return response.send(204, "");
}

Status begun(net::EventStream& stream, const Status& status) {
  if (!status.ok()) {
    (void)stream.send({"error", api::error_json(status), ""});
    stream.close();
  }
  return ok_status();
}

Status denied(const Caller& caller, std::string_view scope) {
  return permission_denied(str_cat("the token ", caller.name, " lacks ", scope),
                           "ask for a token with that scope: `qanat create token`");
}

}  // namespace qanat::serve
