// Who may refer to which chunks by name: the rule of upload sessions (docs/architecture.md).
//
// Whoever may read the whole project may refer to, and ask for, every chunk of it. Anybody else
// only to chunks in packs that the same upload wrote: who asks for other hashes learns nothing, and
// who names them gets nothing.
#pragma once

#include <memory>
#include <set>
#include <string_view>

#include "qanat/content/uploads.h"
#include "qanat/serve/call.h"

namespace qanat::serve {

struct UploadAccess {
  content::Upload upload;
  bool whole_project = false;
  std::set<chunk::PackId> packs;  // that it wrote; only if it is restricted to them

  bool may_use(const content::KnownChunk& chunk) const {
    return whole_project || packs.contains(chunk.pack);
  }
};

// The upload `id` for this caller, renewed. kNotFound also when it is another's, or for a repo that
// the caller may not write to (any more).
Result<UploadAccess> open_upload(Call& call, std::string_view id);

// For what the upload sends. Who may not read everything must find it in packs of its own; and
// could tell from the time whether others have it.
inline content::ContentStore::WriterOptions writer_options(const UploadAccess& access) {
  content::ContentStore::WriterOptions options;
  options.deduplicate = access.whole_project;
  if (!access.whole_project) options.only_from = &access.packs;
  return options;
}

// Makes what was written part of the index, and notes whose it is.
Status register_chunks(Call& call, const UploadAccess& access, content::ContentWriter& writer);

}  // namespace qanat::serve
