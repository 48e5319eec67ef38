#include "content_objects.h"

#include <filesystem>
#include <vector>

#include "qanat/api/describe.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/content/index_manifest.h"
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

// Objects that the metadata names, some of them: none if it knows no content.
Result<std::vector<std::string>> named_objects(meta::Store& meta) {
  constexpr std::string_view kIndex = "/v1/index/";
  QANAT_ASSIGN_OR_RETURN(const auto found,
                         meta.range(meta::KeyRange::prefix(kIndex), {.limit = 1000}));
  std::vector<std::string> names;
  for (const meta::KeyValue& item : found.items) {
    // <project>/<index>/manifest or l0/<id>
    const auto parts = split(std::string_view(item.key).substr(kIndex.size()), '/');
    if (parts.size() == 3 && parts[2] == "manifest") {
      QANAT_ASSIGN_OR_RETURN(const auto manifest, content::parse_manifest(item.value));
      for (const content::SegmentRun& run : manifest.runs) {
        for (const content::RunSegment& segment : run) {
          names.push_back(segment.location.object_key);
        }
      }
    } else if (parts.size() == 4 && parts[2] == "l0") {
      QANAT_ASSIGN_OR_RETURN(const auto location, content::parse_segment_location(item.value));
      names.push_back(location.object_key);
    }
  }
  return names;
}

Result<bool> has_any(const object::ObjectStore& store, const std::vector<std::string>& keys) {
  for (const std::string& key : keys) {
    const auto size = store.size(key);
    if (size.ok()) return true;
    if (size.code() != Code::kNotFound) return size.status();
  }
  return false;
}

// Whether it holds content of whomever. Where nothing may be listed, nothing is found.
Result<bool> has_content(const object::ObjectStore& store) {
  for (const std::string_view prefix : {"packs/", "segments/"}) {
    bool any = false;
    const Status listed = store.list(prefix, [&](const object::ObjectInfo&) -> Status {
      any = true;
      return cancelled("one is enough");
    });
    if (any) return true;
    if (!listed.ok() && listed.code() != Code::kPermissionDenied) return listed;
  }
  return false;
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

// A store that was opened, and how it is called.
struct Place {
  std::unique_ptr<object::ObjectStore> store;
  std::string shown;
  bool in_data_folder = false;
};

// `text`: a URL, or "" for the folder in the data folder. A store that is named is probed.
Result<Place> open_place(const std::string& text, const ContentObjectsOptions& options) {
  object::OpenOptions open;
  open.client = options.client;
  Place place;
  const std::string local = options.data_folder + "/objects";
  place.shown = local;
  place.in_data_folder = text.empty();
  if (!text.empty()) {
    QANAT_ASSIGN_OR_RETURN(object::StoreUrl url, object::parse_store_url(text));
    if (url.kind == object::StoreUrl::Kind::kLocal) {
      // It is kept, and must mean the same from another working directory.
      url.path = std::filesystem::absolute(url.path).lexically_normal().string();
      place.in_data_folder = url.path == local;
    }
    if (!place.in_data_folder) {
      place.shown = url.to_string();
      QANAT_ASSIGN_OR_RETURN(place.store, object::open_object_store(url, open));
      QANAT_RETURN_IF_ERROR(object::probe_object_store(*place.store).with_context("object store"));
      return place;
    }
  }
  QANAT_ASSIGN_OR_RETURN(place.store, object::open_object_store(local, open));
  return place;
}

std::string id_file(const ContentObjectsOptions& options) {
  return options.data_folder + "/installation";
}

// Makes sure that the store is this installation's.
Status claim(meta::Store& meta, const Place& place, const ContentObjectsOptions& options) {
  object::ObjectStore& store = *place.store;
  QANAT_ASSIGN_OR_RETURN(std::string owner, read_marker(store));
  if (owner.empty()) {
    QANAT_ASSIGN_OR_RETURN(const auto named, named_objects(meta));
    if (!named.empty()) {
      // A folder that an older Qanat made has no marker; that it holds what is named shows whose it
      // is. To a store that is named anew everything must have been copied, which only the operator
      // knows.
      bool known = false;
      if (place.in_data_folder) {
        QANAT_ASSIGN_OR_RETURN(known, has_any(store, named));
      }
      if (!known) {
        return failed_precondition(
            str_cat("the content of this data folder is not in ", place.shown),
            place.in_data_folder
                ? str_cat("is a disk not mounted? Put the content back there, from a backup; or "
                          "give the --object of its first start")
                : str_cat("give the --object of its first start, or copy all objects there, with "
                          "their keys, and an object `installation` that holds ",
                          options.installation));
      }
    } else {
      QANAT_ASSIGN_OR_RETURN(const bool content, has_content(store));
      if (content) {
        return failed_precondition(
            str_cat(place.shown,
                    " holds content that the metadata of this data folder knows "
                    "nothing of: it would be deleted as garbage"),
            "start with the data folder that it belongs to, or give an empty folder, bucket or "
            "prefix; content that nobody needs may be moved elsewhere");
      }
    }
    const Status written = store.write(kMarkerKey, str_cat(options.installation, "\n"));
    if (!written.ok() && written.code() != Code::kAlreadyExists) return written;
    QANAT_ASSIGN_OR_RETURN(owner, read_marker(store));
  }
  if (owner == options.installation) return ok_status();
  return failed_precondition(
      str_cat(place.shown, " holds the content of another installation"),
      place.in_data_folder
          ? str_cat("it is that of ", owner, ", and the metadata that of ", options.installation,
                    ": put back ", options.data_folder, "/meta of that one, from a backup")
          : str_cat("give each installation a bucket or a prefix of its own, such as "
                    "s3://bucket/qanat-2"));
}

Status metadata_lost(const ContentObjectsOptions& options, std::string_view what) {
  return data_loss(
      str_cat("the metadata in ", options.data_folder, "/meta is gone, but ", what),
      str_cat("without it nothing can be found, and all content would be deleted as garbage: put "
              "back ",
              options.data_folder, "/meta from a backup; to begin anew, take another data folder ",
              "and, if --object is given, another place for the content"));
}

}  // namespace

Status expect_no_content(FileSystem& files, const ContentObjectsOptions& options) {
  if (files.exists(id_file(options))) {
    return metadata_lost(options, str_cat("its installation is not: there is ", id_file(options)));
  }
  QANAT_ASSIGN_OR_RETURN(const Place place, open_place(options.url, options));
  QANAT_ASSIGN_OR_RETURN(const std::string owner, read_marker(*place.store));
  if (!owner.empty() && !place.in_data_folder) {
    return failed_precondition(
        str_cat(place.shown, " holds the content of another installation"),
        "give each installation a bucket or a prefix of its own, such as s3://bucket/qanat-2; if "
        "it is this one's, its metadata is gone: put that back from a backup");
  }
  if (!owner.empty()) {
    return metadata_lost(options, str_cat(place.shown, " holds the content of an installation"));
  }
  QANAT_ASSIGN_OR_RETURN(const bool content, has_content(*place.store));
  if (!content) return ok_status();
  if (place.in_data_folder) return metadata_lost(options, str_cat(place.shown, " holds content"));
  return failed_precondition(
      str_cat(place.shown, " holds content, but not of this installation, which is new"),
      "start with the data folder that it belongs to, or give an empty folder, bucket or prefix; "
      "content that nobody needs may be moved elsewhere");
}

Result<std::unique_ptr<object::ObjectStore>> open_content_objects(
    FileSystem& files, meta::Store& meta, const ContentObjectsOptions& options) {
  const std::string id_path = id_file(options);
  const auto id = files.read_file(id_path, kMaxMarker);
  if (!id.ok() && id.code() != Code::kNotFound) return id.status();
  if (id.ok() && trim(*id) != options.installation) {
    return failed_precondition(
        str_cat("the metadata in ", options.data_folder, "/meta is that of installation ",
                options.installation, ", the data folder that of ", trim(*id)),
        str_cat("put back the metadata that belongs there, from a backup; ", id_path,
                " says whose the folder is"));
  }
  ObjectsRecord record;
  QANAT_ASSIGN_OR_RETURN(const auto found, meta.get(kObjectsKey));
  if (found) {
    QANAT_ASSIGN_OR_RETURN(record,
                           api::parse_json<ObjectsRecord>(found->value, {.ignore_unknown = true}));
  }
  QANAT_ASSIGN_OR_RETURN(Place place,
                         open_place(options.url.empty() ? record.url : options.url, options));
  QANAT_RETURN_IF_ERROR(claim(meta, place, options));
  if (!id.ok()) {
    QANAT_RETURN_IF_ERROR(files.write_file_durably(id_path, options.installation + "\n"));
  }
  if (place.in_data_folder) return std::move(place.store);
  if (record.url != place.shown) {
    record.url = place.shown;
    QANAT_RETURN_IF_ERROR(
        meta.commit(meta::Transaction().put(kObjectsKey, api::json_text(record))).status());
  }
  log_info("content is in", {{"store", place.store->describe()}});
  return std::move(place.store);
}

}  // namespace qanat
