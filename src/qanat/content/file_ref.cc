#include "qanat/content/file_ref.h"

#include "qanat/base/string.h"
#include "qanat/chunk/chunker.h"

namespace qanat::content {

void FileRef::encode_to(std::string& out) const {
  if (empty()) {
    put_u8(out, 0);
    return;
  }
  put_u8(out, static_cast<uint8_t>(kind));
  put_varint(out, size);
  out += hash.view();
}

std::string FileRef::encode() const {
  std::string out;
  encode_to(out);
  return out;
}

Result<FileRef> FileRef::decode(std::string_view bytes) {
  Reader in(bytes);
  QANAT_ASSIGN_OR_RETURN(uint8_t what, in.u8());
  QANAT_ASSIGN_OR_RETURN(FileRef file, decode_after(what, in));
  QANAT_RETURN_IF_ERROR(in.expect_end());
  return file;
}

Result<FileRef> FileRef::decode_after(uint8_t what, Reader& in) {
  FileRef file;
  if (what == 0) return file;
  if (what > 2) return data_loss(str_cat("a file reference of unknown kind ", what));
  file.kind = static_cast<chunk::BlobKind>(what);
  QANAT_ASSIGN_OR_RETURN(file.size, in.varint());
  if (file.size == 0 || (file.kind == chunk::BlobKind::kChunk && file.size > chunk::kMaxChunk)) {
    return data_loss(str_cat("a file reference with an impossible size of ", file.size));
  }
  QANAT_ASSIGN_OR_RETURN(std::string_view raw, in.raw(Hash::kSize));
  QANAT_ASSIGN_OR_RETURN(file.hash, Hash::from_bytes(raw));
  return file;
}

std::string FileRef::to_text() const { return to_base64url(encode()); }

Result<FileRef> FileRef::from_text(std::string_view text) {
  QANAT_ASSIGN_OR_RETURN(std::string bytes, from_base64url(text));
  return decode(bytes);
}

Hash FileRef::content_id() const {
  std::string bytes("file\0", 5);
  encode_to(bytes);
  return sha256(bytes);
}

}  // namespace qanat::content
