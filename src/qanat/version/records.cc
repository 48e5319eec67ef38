#include "qanat/version/records.h"

#include "qanat/api/describe.h"
#include "qanat/base/string.h"

namespace qanat::api {

template <>
struct TextFormat<content::TreeRoot> {
  static constexpr const char* kSchemaFormat = "base64url";
  static std::string format(const content::TreeRoot& root) { return root.to_text(); }
  static Status parse(std::string_view text, content::TreeRoot& root) {
    QANAT_ASSIGN_OR_RETURN(root, content::TreeRoot::from_text(text));
    return ok_status();
  }
};

}  // namespace qanat::api

namespace qanat::version {
namespace {

constexpr int64_t kFormat = 1;

}  // namespace

std::string BranchName::to_string() const { return str_cat(repo, "@", branch); }

// The names and meanings of stored fields. A name is never given a second meaning.

std::vector<api::EnumValue> enum_values(CommitOrigin) {
  return {{static_cast<int>(CommitOrigin::kUser), "user"},
          {static_cast<int>(CommitOrigin::kPipeline), "pipeline"}};
}

std::vector<api::EnumValue> enum_values(WaveCause) {
  return {{static_cast<int>(WaveCause::kCommit), "commit"},
          {static_cast<int>(WaveCause::kHeadMoved), "head-moved"},
          {static_cast<int>(WaveCause::kPipeline), "pipeline"}};
}

template <class V>
void describe(V& v, BranchName& t) {
  v.type("BranchName", "");
  v.required("repo", t.repo, "");
  v.required("branch", t.branch, "");
}

template <class V>
void describe(V& v, CommitInput& t) {
  v.type("CommitInput", "");
  v.required("name", t.name, "");
  v.required("repo", t.repo, "");
  v.required("branch", t.branch, "");
  v.optional("commit", t.commit, "");
  v.optional("wave", t.wave, "");
}

template <class V>
void describe(V& v, HeadChange& t) {
  v.type("HeadChange", "");
  v.required("branch", t.branch, "");
  v.optional("commit", t.commit, "");
}

template <class V>
void fields(V& v, ProjectRecord& t) {
  v.required("created_ms", t.created_ms, "");
  v.optional("description", t.description, "");
}

template <class V>
void fields(V& v, RepoRecord& t) {
  v.required("created_ms", t.created_ms, "");
  v.optional("description", t.description, "");
  v.optional("pipeline", t.pipeline, "");
  v.optional("deleting", t.deleting, "");
  v.optional("trash", t.trash, "");
  v.optional("restoring", t.restoring, "");
}

template <class V>
void fields(V& v, BranchRecord& t) {
  v.optional("head", t.head, "");
  v.optional("head_wave", t.head_wave, "");
  v.optional("open", t.open, "");
  v.optional("pipeline", t.pipeline, "");
  v.optional("provenance", t.provenance, "");
  v.required("created_ms", t.created_ms, "");
}

template <class V>
void fields(V& v, CommitRecord& t) {
  v.optional("origin", t.origin, "");
  v.optional("branch", t.branch, "");
  v.optional("parent", t.parent, "");
  v.required("depth", t.depth, "");
  v.optional("jump", t.jump, "");
  v.optional("wave", t.wave, "");
  v.required("started_ms", t.started_ms, "");
  v.optional("finished_ms", t.finished_ms, "");
  v.optional("description", t.description, "");
  v.required("root", t.root, "");
  v.optional("error", t.error, "");
  v.optional("pipeline", t.pipeline, "");
  v.optional("spec_version", t.spec_version, "");
  v.optional("image", t.image, "");
  v.optional("inputs", t.inputs, "");
}

template <class V>
void fields(V& v, WaveRecord& t) {
  v.required("id", t.id, "");
  v.required("cause", t.cause, "");
  v.optional("changed", t.changed, "");
  v.optional("members", t.members, "");
  v.required("created_ms", t.created_ms, "");
}

template <class V>
void fields(V& v, HeadEntry& t) {
  v.optional("commit", t.commit, "");
}

template <class V>
void fields(V& v, TrashRecord& t) {
  v.required("kind", t.kind, "");
  v.optional("repo", t.repo, "");
  v.optional("branch", t.branch, "");
  v.optional("commit", t.commit, "");
  v.required("deleted_ms", t.deleted_ms, "");
  v.required("expires_ms", t.expires_ms, "");
  v.required("state", t.state, "");
  v.optional("before_wave", t.before_wave, "");
  v.optional("how", t.how, "");
  v.optional("children", t.children, "");
}

template <class V>
void fields(V& v, SessionRecord& t) {
  v.required("server", t.server, "");
  v.required("started_ms", t.started_ms, "");
  v.optional("epochs", t.epochs, "");
}

namespace {

// A record as it is stored: its fields beside the format version.
template <class Record>
struct Stored {
  int64_t v = kFormat;
  Record record;
};

template <class V, class Record>
void describe(V& v, Stored<Record>& t) {
  v.type("Record", "");
  v.required("v", t.v, "");
  fields(v, t.record);
}

template <class Record>
std::string encode_any(const Record& record) {
  return api::json_text(Stored<Record>{kFormat, record});
}

}  // namespace

std::string encode(const ProjectRecord& record) { return encode_any(record); }
std::string encode(const RepoRecord& record) { return encode_any(record); }
std::string encode(const BranchRecord& record) { return encode_any(record); }
std::string encode(const CommitRecord& record) { return encode_any(record); }
std::string encode(const WaveRecord& record) { return encode_any(record); }
std::string encode(const HeadEntry& entry) { return encode_any(entry); }
std::string encode(const SessionRecord& record) { return encode_any(record); }
std::string encode(const TrashRecord& record) { return encode_any(record); }

template <class Record>
Result<Record> decode(std::string_view key, std::string_view value) {
  auto stored = api::parse_json<Stored<Record>>(value);
  if (!stored.ok()) {
    return data_loss(str_cat("metadata record ", key, ": ", stored.status().message()));
  }
  if (stored->v != kFormat) {
    return failed_precondition(str_cat("metadata record ", key, " has format ", stored->v,
                                       "; this program knows format ", kFormat),
                               "use the version of qanat that wrote it");
  }
  return std::move(stored->record);
}

template Result<ProjectRecord> decode(std::string_view, std::string_view);
template Result<RepoRecord> decode(std::string_view, std::string_view);
template Result<BranchRecord> decode(std::string_view, std::string_view);
template Result<CommitRecord> decode(std::string_view, std::string_view);
template Result<WaveRecord> decode(std::string_view, std::string_view);
template Result<HeadEntry> decode(std::string_view, std::string_view);
template Result<SessionRecord> decode(std::string_view, std::string_view);
template Result<TrashRecord> decode(std::string_view, std::string_view);

}  // namespace qanat::version
