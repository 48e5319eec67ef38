// RootSource: what garbage collection must keep, as the layers above know it.
//
// version/ knows commits and the trash, pipeline/ the records of jobs. Each tells the collector
// where its trees begin, and how to read the nodes whose meaning is its own.
//
// The contract that makes collection safe: whatever a source ever lets a reader reach is among its
// roots at every revision at which it can be reached, or can come back (trash that undelete could
// still restore is a root; trash that is not any more must be gone from meta before it stops being
// one: that is what prepare() does).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "qanat/base/status.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/map_root.h"

namespace qanat::content {

// How a node is to be read.
enum class NodeUse : uint8_t {
  kContent = 0,  // a directory or a list of chunks: it says so itself
  kFileMap = 1,  // a plain map whose values are FileRefs
  kForeign = 2,  // and above: the RootSource's own
};

struct Reference {
  BlobRef ref;
  NodeUse use = NodeUse::kContent;  // of nodes
};
using ReferenceVisitor = std::function<Status(const Reference&)>;

// Passes of marking, in this order. What a pass marks is accounted to it; so what `kTrash` marks is
// kept by the trash alone.
enum class RootRank : uint8_t { kVersions = 0, kJobs = 1, kTrash = 2 };
inline constexpr int kRootRanks = 3;

// Who keeps something alive, for the report.
struct Holder {
  std::string kind;  // "repo", "pipeline", "trash"
  std::string name;
  auto operator<=>(const Holder&) const = default;
};

class RootSource {
 public:
  virtual ~RootSource() = default;

  // Removes, durably, what is kept only until a time that is over. `now`: without waiting for it.
  // An error leaves the rest for the next time.
  virtual Status prepare(std::string_view project, bool now) = 0;

  struct Request {
    std::string project;
    int64_t revision = 0;  // of meta; kGone if it is compacted: begin again
    RootRank rank = RootRank::kVersions;
    // For dry runs: leaves out what prepare(now) would remove.
    bool without_expired = false;
    bool now = false;
  };
  virtual Status visit_roots(
      const Request& request,
      const std::function<Status(const Holder&, const Reference&)>& visit) = 0;

  // The references of a node of a use that is this source's own. kNotFound: not of mine.
  virtual Status visit_references(NodeUse use, const Blob& node, const ReferenceVisitor& visit) = 0;

  // What an entry of the index `results` refers to directly. Such entries are weak: one goes as
  // soon as anything of this is marked by nothing else. kNotFound: not of mine.
  virtual Status visit_result(std::string_view value, const ReferenceVisitor& visit) = 0;
};

// The references of a root: its node, or what an inlined root refers to. For kContent and kFileMap.
Status visit_root_references(const MapRoot& root, NodeUse use, const ReferenceVisitor& visit);
// The references of a node of these two uses.
Status visit_node_references(const Blob& node, NodeUse use, const ReferenceVisitor& visit);

}  // namespace qanat::content
