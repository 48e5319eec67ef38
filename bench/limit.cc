// bench_limit: the least work that any program must do, to measure Qanat against.
//
//   bench_limit write SOURCE TARGET   reads the file or all files of the folder, in the order of
//                                     their names, writes their bytes one after another into the
//                                     file TARGET, and makes it durable (fsync of file and folder)
//   bench_limit chunk SOURCE          reads them, cuts them into chunks and hashes these with the
//                                     product's code, one thread cutting and one a core hashing
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "qanat/base/hash.h"
#include "qanat/base/thread_pool.h"
#include "qanat/chunk/chunker.h"

namespace {

constexpr size_t kPiece = 1u << 20;

void fail(const std::string& what) {
  std::perror(what.c_str());
  std::exit(1);
}

std::vector<std::string> files_of(const std::string& source) {
  if (!std::filesystem::is_directory(source)) return {source};
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(source)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Calls `take` with the bytes of each file, in pieces.
template <class Take>
void read_all(const std::vector<std::string>& files, const Take& take) {
  const std::unique_ptr<char[]> buffer(new char[kPiece]);
  for (const std::string& name : files) {
    const int fd = open(name.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail(name);
    while (true) {
      const ssize_t got = read(fd, buffer.get(), kPiece);
      if (got < 0) fail(name);
      take(std::string_view(buffer.get(), static_cast<size_t>(got)));
      if (got == 0) break;
    }
    close(fd);
  }
}

void write_one(const std::vector<std::string>& files, const std::string& target) {
  const int out = open(target.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (out < 0) fail(target);
  std::string waiting;
  const auto drain = [&] {
    for (std::string_view rest = waiting; !rest.empty();) {
      const ssize_t wrote = write(out, rest.data(), rest.size());
      if (wrote < 0) fail(target);
      rest.remove_prefix(static_cast<size_t>(wrote));
    }
    waiting.clear();
  };
  read_all(files, [&](std::string_view bytes) {
    waiting += bytes;
    if (waiting.size() >= kPiece) drain();
  });
  drain();
  if (fsync(out) != 0) fail(target);
  close(out);
  const std::string folder = std::filesystem::absolute(target).parent_path();
  const int directory = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0 || fsync(directory) != 0) fail(folder);
  close(directory);
}

void chunk_and_hash(const std::vector<std::string>& files) {
  const size_t cores = std::max(1u, std::thread::hardware_concurrency());
  qanat::ThreadPool pool("hash", cores, 4 * cores);
  size_t chunks = 0;
  std::vector<std::string> batch;  // small chunks go together, as in the product
  size_t batch_bytes = 0;
  const auto hand_on = [&] {
    pool.submit([batch = std::move(batch)] {
      for (const std::string& chunk : batch) (void)qanat::sha256(chunk);
    });
    batch.clear();
    batch_bytes = 0;
  };
  qanat::chunk::Chunker chunker([&](std::string_view chunk) {
    ++chunks;
    batch.emplace_back(chunk);
    batch_bytes += chunk.size();
    if (batch_bytes >= kPiece) hand_on();
    return qanat::ok_status();
  });
  read_all(files, [&](std::string_view bytes) {
    (void)(bytes.empty() ? chunker.finish() : chunker.update(bytes));
  });
  hand_on();
  pool.wait_idle();
  std::printf("%zu chunks\n", chunks);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "write") == 0) {
    write_one(files_of(argv[2]), argv[3]);
  } else if (argc == 3 && std::strcmp(argv[1], "chunk") == 0) {
    chunk_and_hash(files_of(argv[2]));
  } else {
    std::fputs("usage: bench_limit write SOURCE TARGET | chunk SOURCE\n", stderr);
    return 2;
  }
  return 0;
}
