#include "content_objects.h"

#include <filesystem>

#include "qanat/api/describe.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/object/open_object_store.h"

namespace qanat {
namespace {

constexpr std::string_view kObjectsKey = "/v1/objects";
constexpr std::string_view kMarkerKey = "installation";
constexpr int64_t kMaxMarker = 256;

struct ObjectsRecord {
  int64_t v = 1;
  std::string url;
};
template <class V>
void describe(V& v, ObjectsRecord& t) {
  v.type("ObjectsRecord", "");
  v.required("v", t.v, "");
  v.required("url", t.url, "The object store that holds the content, without secrets.");
}

Result<bool> has_content(meta::Store& meta) {
  QANAT_ASSIGN_OR_RETURN(const auto found,
                         meta.range(meta::KeyRange::prefix("/v1/index/"), {.limit = 1}));
  return !found.items.empty();
}

// The id in the store; "" if there is none.
Result<std::string> read_marker(const object::ObjectStore& store) {
  const std::string key(kMarkerKey);
  const auto size = store.size(key);
  if (size.code() == Code::kNotFound) return std::string();
  if (!size.ok()) return size.status();
  if (*size > kMaxMarker) return std::string("something else");
  QANAT_ASSIGN_OR_RETURN(const std::string text, store.read(key, 0, *size));
  return std::string(trim(text));
}

// Makes sure that the store is this installation's.
Status claim(meta::Store& meta, object::ObjectStore& store, const std::string& installation,
             const std::string& shown) {
  QANAT_ASSIGN_OR_RETURN(std::string owner, read_marker(store));
  if (owner.empty()) {
    QANAT_ASSIGN_OR_RETURN(const bool content, has_content(meta));
    if (content) {
      return failed_precondition(
          str_cat("the content of this data folder is not in ", shown),
          str_cat("give the --object of its first start, or copy all objects there, with their "
                  "keys, and an object `installation` that holds ",
                  installation));
    }
    const Status written = store.write(kMarkerKey, str_cat(installation, "\n"));
    if (!written.ok() && written.code() != Code::kAlreadyExists) return written;
    QANAT_ASSIGN_OR_RETURN(owner, read_marker(store));
  }
  if (owner == installation) return ok_status();
  return failed_precondition(
      str_cat(shown, " holds the content of another installation"),
      "give each installation a bucket or a prefix of its own, such as s3://bucket/qanat-2");
}

}  // namespace

Result<std::unique_ptr<object::ObjectStore>> open_content_objects(
    meta::Store& meta, const ContentObjectsOptions& options) {
  ObjectsRecord record;
  QANAT_ASSIGN_OR_RETURN(const auto found, meta.get(kObjectsKey));
  if (found) {
    QANAT_ASSIGN_OR_RETURN(record,
                           api::parse_json<ObjectsRecord>(found->value, {.ignore_unknown = true}));
  }
  object::OpenOptions open;
  open.client = options.client;
  const std::string text = options.url.empty() ? record.url : options.url;
  if (text.empty()) return object::open_object_store(options.local_folder, open);

  QANAT_ASSIGN_OR_RETURN(object::StoreUrl url, object::parse_store_url(text));
  if (url.kind == object::StoreUrl::Kind::kLocal) {
    // It is kept, and must mean the same from another working directory.
    url.path = std::filesystem::absolute(url.path).lexically_normal().string();
    if (url.path == options.local_folder) return object::open_object_store(url, open);
  }
  const std::string shown = url.to_string();
  QANAT_ASSIGN_OR_RETURN(auto store, object::open_object_store(url, open));
  QANAT_RETURN_IF_ERROR(object::probe_object_store(*store).with_context("object store"));
  QANAT_RETURN_IF_ERROR(claim(meta, *store, options.installation, shown));
  if (record.url != shown) {
    record.url = shown;
    QANAT_RETURN_IF_ERROR(
        meta.commit(meta::Transaction().put(kObjectsKey, api::json_text(record))).status());
  }
  log_info("content is in", {{"store", store->describe()}});
  return store;
}

}  // namespace qanat
