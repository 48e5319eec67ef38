#include "qanat/cli/folder_walk.h"

#include <dirent.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "qanat/base/path.h"
#include "qanat/base/string.h"

namespace qanat::cli {
namespace {

Status vanished(const std::string& file) {
  return failed_precondition(str_cat(file, " vanished while its folder was put"),
                             "Nothing was put. Put the folder again when nothing changes it.");
}

}  // namespace

FileStamp stamp_of(const struct stat& info) {
  FileStamp stamp;
  stamp.size = static_cast<uint64_t>(info.st_size);
  stamp.modified_ns = info.st_mtim.tv_sec * 1'000'000'000LL + info.st_mtim.tv_nsec;
  stamp.changed_ns = info.st_ctim.tv_sec * 1'000'000'000LL + info.st_ctim.tv_nsec;
  stamp.inode = info.st_ino;
  return stamp;
}

std::strong_ordering walk_order(std::string_view a, std::string_view b) {
  const auto rank = [](char c) { return c == '/' ? 0 : static_cast<uint8_t>(c) + 1; };
  const auto [left, right] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  if (left == a.end() || right == b.end()) return a.size() <=> b.size();
  return rank(*left) <=> rank(*right);
}

FolderWalk::FolderWalk(std::string folder) {
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
  failed_ = enter(std::move(folder), "");
}

Result<std::optional<FolderWalk::Found>> FolderWalk::next() {
  QANAT_RETURN_IF_ERROR(failed_);
  while (!levels_.empty()) {
    Level& level = levels_.back();
    if (level.position == level.entries.size()) {
      levels_.pop_back();
      continue;
    }
    const auto [offset, length] = level.entries[level.position++];
    const std::string_view name = std::string_view(level.names).substr(offset, length);
    std::string file = str_cat(level.folder, "/", name);
    std::string path = join_path(level.path, name);
    struct stat info{};
    if (lstat(file.c_str(), &info) != 0)
      return errno == ENOENT ? vanished(file) : errno_status(errno, file);
    if (S_ISLNK(info.st_mode)) {
      if (stat(file.c_str(), &info) != 0)
        return errno_status(errno, str_cat(file, " (a symbolic link)"));
      if (S_ISDIR(info.st_mode)) {
        return failed_precondition(str_cat(file, " is a symbolic link to a folder"),
                                   "Links to folders are not followed, because they can lead in "
                                   "circles: replace it by what it names.");
      }
    }
    if (S_ISDIR(info.st_mode)) {
      failed_ = enter(std::move(file), std::move(path));
      QANAT_RETURN_IF_ERROR(failed_);
      continue;
    }
    if (!S_ISREG(info.st_mode))
      return failed_precondition(str_cat(file, " is neither a file nor a folder"));
    return std::optional<Found>(Found{std::move(file), std::move(path), stamp_of(info)});
  }
  return std::optional<Found>();
}

Status FolderWalk::enter(std::string folder, std::string path) {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(folder.c_str()), closedir);
  if (directory == nullptr) {
    return errno == ENOENT && !path.empty() ? vanished(folder) : errno_status(errno, folder);
  }
  Level level{std::move(folder), std::move(path), {}, {}, 0};
  errno = 0;
  while (const dirent* entry = readdir(directory.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    level.entries.emplace_back(level.names.size(), static_cast<uint32_t>(name.size()));
    level.names += name;
  }
  if (errno != 0) return errno_status(errno, level.folder);
  const std::string_view names = level.names;
  std::sort(level.entries.begin(), level.entries.end(), [names](const auto& a, const auto& b) {
    return names.substr(a.first, a.second) < names.substr(b.first, b.second);
  });
  levels_.push_back(std::move(level));
  return ok_status();
}

}  // namespace qanat::cli
