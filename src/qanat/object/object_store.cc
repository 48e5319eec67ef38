#include "qanat/object/object_store.h"

#include "qanat/base/string.h"

namespace qanat::object {
namespace {

bool is_key_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.' || c == '=' || c == '-';
}

}  // namespace

Status check_key(std::string_view key) {
  if (key.empty() || key.size() > kMaxKeyBytes) {
    return invalid_argument(
        str_cat("object key of ", key.size(), " bytes; 1 to ", kMaxKeyBytes, " are allowed"));
  }
  for (std::string_view part : split(key, '/')) {
    if (part.empty() || part == "." || part == "..") {
      return invalid_argument(str_cat("object key ", quoted(key), " has the part ", quoted(part)));
    }
    for (char c : part) {
      if (!is_key_character(c)) {
        return invalid_argument(str_cat("object key ", quoted(key), " has a character outside ",
                                        "[A-Za-z0-9_.=-] and /"));
      }
    }
  }
  return ok_status();
}

Status ObjectStore::write(std::string_view key, std::string_view bytes) {
  QANAT_ASSIGN_OR_RETURN(auto writer, create(key));
  QANAT_RETURN_IF_ERROR(writer->append(bytes));
  return writer->finish();
}

}  // namespace qanat::object
