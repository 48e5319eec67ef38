// Who user code runs as: our own reading of /etc/passwd and /etc/group (passwd(5), group(5)) of the
// image. The C library's functions are not used: a static program's getpwnam would load the image's
// own NSS libraries and run their code.
//
// The files belong to the image's author: every line may be malformed (and is then skipped) and
// both may be missing.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::worker {

struct Account {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // supplementary, without gid
  std::string name;           // "" for a uid that passwd does not know
  std::string home = "/";
};

// `user` is as in an image's USER and a spec's transform.user: name or uid, with an optional
// ":group" (name or gid); "" is root. A uid needs no entry. Supplementary groups come from `group`
// unless a group was named, as in Docker. kFailedPrecondition for a name that is not there.
Result<Account> find_account(std::string_view user, std::string_view passwd,
                             std::string_view group);

// The same from /etc/passwd and /etc/group (files over 16 MiB count as missing).
Result<Account> find_account(std::string_view user);

}  // namespace qanat::worker
