// EndingWriter: a ContentWriter whose transaction also ends an upload.
//
// So an edit that names an upload is applied once: who asks again because the answer was lost finds
// the upload ended, and what was appended is not appended twice. Delegates everything else. Borrows
// all it is given. One thread.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qanat/base/string.h"
#include "qanat/content/content_writer.h"
#include "qanat/content/uploads.h"
#include "qanat/meta/store.h"

namespace qanat::serve {

class EndingWriter : public content::ContentWriter {
 public:
  EndingWriter(content::ContentWriter& writer, const meta::Store& meta,
               const content::Upload& upload)
      : writer_(writer), meta_(meta), upload_(upload) {}

  void add_to(meta::Transaction* transaction) const override {
    writer_.add_to(transaction);
    transaction->when(upload_.alive()).erase(upload_.key());
  }
  // kNotFound if the upload has ended: another edit was quicker.
  Status recheck() override {
    QANAT_ASSIGN_OR_RETURN(const auto record, meta_.get(upload_.key()));
    if (!record || record->create_revision != upload_.create_revision) {
      return not_found(str_cat("upload ", upload_.id, " has ended"),
                       "another edit has used it: begin a new one");
    }
    return writer_.recheck();
  }

  Result<content::Blob> read(const content::BlobRef& ref) override { return writer_.read(ref); }
  Result<std::vector<content::Blob>> read_many(std::span<const content::BlobRef> refs) override {
    return writer_.read_many(refs);
  }
  Result<content::BlobRef> add(content::BlobKind kind, std::string_view plain,
                               const Hash* known) override {
    return writer_.add(kind, plain, known);
  }
  std::unique_ptr<content::PendingChunk> begin_add(Buffer plain, Check check) override {
    return writer_.begin_add(std::move(plain), check);
  }
  size_t ahead() const override { return writer_.ahead(); }
  Result<std::vector<std::optional<content::KnownChunk>>> find_chunks(
      std::span<const Hash> hashes) override {
    return writer_.find_chunks(hashes);
  }
  void rely_on(const content::KnownChunk& chunk) override { writer_.rely_on(chunk); }
  Status flush() override { return writer_.flush(); }
  std::vector<chunk::PackId> waiting_packs() const override { return writer_.waiting_packs(); }
  void committed(int64_t revision) override { writer_.committed(revision); }
  Status rely_on_epoch() override { return writer_.rely_on_epoch(); }
  Stats stats() const override { return writer_.stats(); }

 private:
  content::ContentWriter& writer_;
  const meta::Store& meta_;
  const content::Upload& upload_;
};

}  // namespace qanat::serve
