#include "qanat/api/address.h"

#include "qanat/base/id.h"
#include "qanat/base/name.h"
#include "qanat/base/string.h"

namespace qanat::api {
namespace {

constexpr uint64_t kMaxAncestry = 1'000'000'000;

Status bad_ref(std::string_view text, std::string_view why) {
  return invalid_argument(str_cat(qanat::quoted(text), " is not a branch or commit: ", why),
                          "examples: master, master^, master^2, master.3, or 32 hex digits");
}

// A decimal number at `at`, which moves behind it. No digits: `otherwise`.
Result<uint64_t> read_number(std::string_view text, size_t& at, uint64_t otherwise) {
  size_t begin = at;
  uint64_t value = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    value = value * 10 + static_cast<uint64_t>(text[at++] - '0');
    if (value > kMaxAncestry) return bad_ref(text, "the number is too large");
  }
  return at == begin ? otherwise : value;
}

// Splits "[project/]rest" where the slash is before any '@' or ':'.
Status split_project(std::string_view& text, std::string& project) {
  size_t end = text.find_first_of("@:");
  size_t slash = text.substr(0, end).find('/');
  if (slash == std::string_view::npos) return ok_status();
  project = text.substr(0, slash);
  text.remove_prefix(slash + 1);
  return check_project_name(project);
}

std::string with_project(const std::string& project, std::string_view rest) {
  return project == kDefaultProject ? std::string(rest) : str_cat(project, "/", rest);
}

}  // namespace

std::string Ref::to_string() const {
  std::string out = name;
  if (back == 1) {
    out += "^";
  } else if (back > 1) {
    str_append(out, "^", back);
  }
  if (from_start > 0) str_append(out, ".", from_start);
  return out;
}

Result<Ref> parse_ref(std::string_view text) {
  Ref ref;
  size_t at = text.find_first_of("^~.");
  ref.name = text.substr(0, at);
  ref.is_commit = is_id(ref.name);
  if (!ref.is_commit) {
    if (Status status = check_branch_name(ref.name); !status.ok()) {
      return status.with_context(str_cat(qanat::quoted(text), " is not a branch or commit"));
    }
  }
  if (at == std::string_view::npos) return ref;
  if (text[at] == '.') {
    size_t begin = ++at;
    QANAT_ASSIGN_OR_RETURN(ref.from_start, read_number(text, at, 0));
    if (at == begin) return bad_ref(text, "a number must follow the dot");
    if (ref.from_start == 0) return bad_ref(text, "commits are counted from 1");
    if (at != text.size()) return bad_ref(text, "nothing may follow the number");
    if (ref.is_commit) return bad_ref(text, "commits are counted from the start of a branch only");
    return ref;
  }
  while (at < text.size()) {
    if (text[at] != '^' && text[at] != '~') return bad_ref(text, "only ^ and numbers may follow ^");
    ++at;
    QANAT_ASSIGN_OR_RETURN(uint64_t steps, read_number(text, at, 1));
    ref.back += steps;
    if (ref.back > kMaxAncestry) return bad_ref(text, "the number is too large");
  }
  return ref;
}

std::string Address::to_string() const {
  std::string out = with_project(project, repo);
  if (has_ref) str_append(out, "@", ref.to_string());
  if (has_path) str_append(out, ":/", path);
  return out;
}

Result<Address> parse_address(std::string_view text) {
  Address address;
  std::string_view rest = text;
  QANAT_RETURN_IF_ERROR(split_project(rest, address.project));
  size_t end = rest.find_first_of("@:");
  address.repo = rest.substr(0, end);
  if (Status status = check_repo_name(address.repo); !status.ok()) {
    return status.with_context(str_cat("address ", qanat::quoted(text)))
        .with_hint("addresses look like repo@branch:/path");
  }
  if (end == std::string_view::npos) return address;
  rest.remove_prefix(end);
  if (rest[0] == '@') {
    rest.remove_prefix(1);
    size_t colon = rest.find(':');
    Result<Ref> ref = parse_ref(rest.substr(0, colon));
    if (!ref.ok()) return ref.status();
    address.ref = *std::move(ref);
    address.has_ref = true;
    if (colon == std::string_view::npos) return address;
    rest.remove_prefix(colon);
  }
  rest.remove_prefix(1);  // the colon
  address.has_path = true;
  size_t first = rest.find_first_not_of('/');
  address.path = first == std::string_view::npos ? std::string_view() : rest.substr(first);
  if (address.path.size() > 8192) return invalid_argument("the path of the address is too long");
  return address;
}

std::string JobAddress::to_string() const {
  return with_project(project, str_cat(pipeline, "@", job));
}

Result<JobAddress> parse_job_address(std::string_view text) {
  JobAddress address;
  std::string_view rest = text;
  QANAT_RETURN_IF_ERROR(split_project(rest, address.project));
  auto [pipeline, job] = split_once(rest, '@');
  address.pipeline = pipeline;
  address.job = job;
  QANAT_RETURN_IF_ERROR(check_pipeline_name(address.pipeline));
  if (!is_id(address.job)) {
    return invalid_argument(str_cat(qanat::quoted(text), " is not a job"),
                            "jobs are named pipeline@id, with an id of 32 hex digits");
  }
  return address;
}

Result<Address> parse_name_address(std::string_view text) {
  QANAT_ASSIGN_OR_RETURN(Address address, parse_address(text));
  if (address.has_ref || address.has_path) {
    return invalid_argument(
        str_cat(qanat::quoted(text), " is more than a name"),
        str_cat("give ", qanat::quoted(with_project(address.project, address.repo))));
  }
  return address;
}

}  // namespace qanat::api
