// Addresses as people type them:
//   [project/]repo[@ref][:path]    sales/orders@master^2:/2026/march.csv
//   [project/]pipeline@job         standardize@4f0c...
// A ref is a branch or a commit id, with an optional ancestry: `^` or `^^` or `^n` (n commits
// back), `.n` (the n-th commit from the start of the branch, counted from 1). Fuzzed by
// tests/fuzz/address_fuzz.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "qanat/base/status.h"

namespace qanat::api {

inline constexpr std::string_view kDefaultProject = "default";
inline constexpr std::string_view kDefaultBranch = "master";

struct Ref {
  std::string name;         // branch or commit id
  bool is_commit = false;   // 32 lower-case hex digits
  uint64_t back = 0;        // ^n
  uint64_t from_start = 0;  // .n, 0 when not given

  std::string to_string() const;
  bool operator==(const Ref&) const = default;
};

// "master", "master^3", "master.2", "4f..^". Errors: kInvalidArgument.
Result<Ref> parse_ref(std::string_view text);

struct Address {
  std::string project{kDefaultProject};
  std::string repo;
  bool has_ref = false;
  Ref ref{std::string(kDefaultBranch), false, 0, 0};  // of the default branch when has_ref is false
  bool has_path = false;
  std::string path;  // as written, without leading slashes ("" is the root); may be a pattern: not
                     // checked here

  std::string to_string() const;
  bool operator==(const Address&) const = default;
};

// [project/]repo[@ref][:path]
Result<Address> parse_address(std::string_view text);

struct JobAddress {
  std::string project{kDefaultProject};
  std::string pipeline;
  std::string job;  // id of the job (32 hex digits)

  std::string to_string() const;
  bool operator==(const JobAddress&) const = default;
};

// [project/]pipeline@job
Result<JobAddress> parse_job_address(std::string_view text);
// [project/]name, of a repo or pipeline.
Result<Address> parse_name_address(std::string_view text);

}  // namespace qanat::api
