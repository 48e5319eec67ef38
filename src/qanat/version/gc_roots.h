// VersionRoots: what versions keep alive, for garbage collection: the trees of all commits, open
// and failed ones too, and of those in the trash. Its holders, in this order: branches ("branch",
// "orders@master") for their heads, "open commit"s, the newest 100 commits of each repo ("commit",
// "orders@1f0c..."), "repo"s for their other commits, and "trash" ("repo orders"). At most 10,000
// branches and commits are named; what the others keep is told of their repo.
#pragma once

#include "qanat/content/root_source.h"
#include "qanat/version/versions.h"

namespace qanat::version {

class VersionRoots : public content::RootSource {
 public:
  // All outlive it.
  VersionRoots(meta::Store& store, Clock& clock, Versions& versions)
      : store_(store), clock_(clock), versions_(versions) {}

  Status prepare(std::string_view project, bool now) override;
  Status visit_roots(const Request& request,
                     const std::function<Status(const content::Holder&, const content::Reference&)>&
                         visit) override;
  Status visit_references(content::NodeUse use, const content::Blob& node,
                          const content::ReferenceVisitor& visit) override;
  Status visit_result(std::string_view value, const content::ReferenceVisitor& visit) override;

 private:
  Status visit_named(
      const Request& request,
      const std::function<Status(const content::Holder&, const content::Reference&)>& visit);

  meta::Store& store_;
  Clock& clock_;
  Versions& versions_;
};

// What was deleted, for people: "repo orders", "branch orders@master", "commit 1f0c...".
std::string trash_name(const TrashRecord& record);

// Calls `visit` with every item in the trash whose former key begins with `prefix` ("/v1/commit/"),
// as of the request's revision, with the name of what was deleted ("repo orders").
Status visit_trash_items(
    meta::Store& store, Clock& clock, const content::RootSource::Request& request,
    std::string_view prefix,
    const std::function<Status(const std::string& name, const meta::KeyValue& item)>& visit);

// Calls `visit` with every item below a prefix as of a revision, a page at a time.
Status visit_range(const meta::Store& store, const std::string& prefix, int64_t revision,
                   const std::function<Status(const meta::KeyValue& item)>& visit);

}  // namespace qanat::version
