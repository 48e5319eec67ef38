#include "qanat/worker/account.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "qanat/base/file_system.h"
#include "qanat/base/string.h"

namespace qanat::worker {
namespace {

constexpr uint64_t kMaxFile = 16 << 20;

std::optional<uint32_t> parse_id(std::string_view text) {
  if (text.empty() || text[0] == '+') return std::nullopt;
  Result<uint64_t> number = parse_u64(text);
  // The last value means "unchanged" to the kernel.
  if (!number.ok() || *number >= std::numeric_limits<uint32_t>::max()) return std::nullopt;
  return static_cast<uint32_t>(*number);
}

// Calls `visit` with the fields of each line until it returns true.
template <class Visit>
bool find_line(std::string_view file, size_t min_fields, Visit visit) {
  for (std::string_view line : split(file, '\n')) {
    if (line.empty() || line[0] == '#') continue;
    std::vector<std::string_view> fields = split(line, ':');
    if (fields.size() >= min_fields && visit(fields)) return true;
  }
  return false;
}

}  // namespace

Result<Account> find_account(std::string_view user, std::string_view passwd,
                             std::string_view group) {
  auto [user_part, group_part] = split_once(user, ':');
  if (user_part.empty()) user_part = "0";
  Account account;
  const std::optional<uint32_t> uid = parse_id(user_part);
  const bool known = find_line(passwd, 6, [&](const std::vector<std::string_view>& fields) {
    std::optional<uint32_t> entry_uid = parse_id(fields[2]);
    std::optional<uint32_t> entry_gid = parse_id(fields[3]);
    if (!entry_uid || !entry_gid) return false;
    // A name that looks like a number is a uid only if no entry has that name.
    if (fields[0] != user_part && !(uid && *entry_uid == *uid)) return false;
    account.uid = *entry_uid;
    account.gid = *entry_gid;
    account.name = fields[0];
    if (!fields[5].empty()) account.home = fields[5];
    return true;
  });
  if (!known) {
    if (!uid) {
      return failed_precondition(
          str_cat("user ", quoted(user_part), " is not in the image's /etc/passwd"),
          "name a user of the image in transform.user, or give a numeric uid");
    }
    account.uid = *uid;
    account.gid = 0;
  }
  if (!group_part.empty()) {
    std::optional<uint32_t> gid = parse_id(group_part);
    const bool found = find_line(group, 3, [&](const std::vector<std::string_view>& fields) {
      std::optional<uint32_t> entry = parse_id(fields[2]);
      if (!entry || fields[0] != group_part) return false;
      gid = entry;
      return true;
    });
    if (!found && !gid) {
      return failed_precondition(
          str_cat("group ", quoted(group_part), " is not in the image's /etc/group"),
          "name a group of the image after the colon in transform.user, or give a numeric gid");
    }
    account.gid = *gid;
    return account;
  }
  if (account.name.empty()) return account;
  find_line(group, 4, [&](const std::vector<std::string_view>& fields) {
    std::optional<uint32_t> gid = parse_id(fields[2]);
    if (!gid || *gid == account.gid) return false;
    std::vector<std::string_view> members = split(fields[3], ',');
    if (std::find(members.begin(), members.end(), account.name) != members.end() &&
        std::find(account.groups.begin(), account.groups.end(), *gid) == account.groups.end()) {
      account.groups.push_back(*gid);
    }
    return false;
  });
  return account;
}

Result<Account> find_account(std::string_view user) {
  std::string passwd = posix_file_system().read_file("/etc/passwd", kMaxFile).value_or("");
  std::string group = posix_file_system().read_file("/etc/group", kMaxFile).value_or("");
  return find_account(user, passwd, group);
}

}  // namespace qanat::worker
