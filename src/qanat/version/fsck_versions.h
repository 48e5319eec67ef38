// FsckVersions: the records of versions under fsck. A project's repos, branches, commits, `head/`
// and `log/` entries, waves and the trash can be read, and what they name is there; the trees of
// all commits are roots, of those in the trash too.
#pragma once

#include "qanat/content/fsck.h"
#include "qanat/meta/store.h"

namespace qanat::version {

// Calls `visit` with every item below a prefix, a page at a time, each as it is when its page is
// read.
Status visit_records(const meta::Store& store, const std::string& prefix,
                     const std::function<Status(const meta::KeyValue& item)>& visit);

// Finds what is wrong with a record as of a revision (0: now).
using CheckRecord = std::function<Status(const meta::KeyValue& item, int64_t revision,
                                         std::vector<content::FsckProblem>* problems)>;
// Checks every item below a prefix. One with problems is looked at again, everything as of one
// revision, so that a change under way is none. Adds to `count` as many as there were.
Status check_records(const meta::Store& store, const std::string& prefix, const CheckRecord& check,
                     const std::function<Status(content::FsckProblem)>& report, uint64_t* count);

// Calls `visit` with every item in the trash whose former key begins with `prefix` ("/v1/commit/"),
// and how what it is part of is called ("trash, repo orders: "). Records of the trash that cannot
// be read are passed over.
Status visit_trash_records(
    const meta::Store& store, const std::string& project, std::string_view prefix,
    const std::function<Status(const std::string& label, const meta::KeyValue& item)>& visit);

class FsckVersions : public content::FsckSource {
 public:
  // `store` outlives it.
  explicit FsckVersions(meta::Store& store) : store_(store) {}

  Result<uint64_t> check_records(
      const std::string& project,
      const std::function<Status(content::FsckProblem)>& report) override;
  Status visit_roots(const std::string& project,
                     const std::function<Status(const content::FsckRoot&)>& visit) override;
  Status visit_node(content::FsckUse use, const content::Blob& node, bool with_labels,
                    const content::FsckVisit& visit) override;

 private:
  meta::Store& store_;
};

}  // namespace qanat::version
