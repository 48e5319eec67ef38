#include "qanat/connect/tar_reader.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>

#include "qanat/base/string.h"

namespace qanat::connect {
namespace {

// A header as ustar writes it; `edit` may change it before the checksum is computed.
std::string header(std::string_view name, uint64_t size, char type = '0',
                   const std::function<void(std::string&)>& edit = nullptr) {
  std::string block(512, '\0');
  block.replace(0, name.size(), name);
  char octal[16];
  snprintf(octal, sizeof octal, "%011llo", static_cast<unsigned long long>(size));
  block.replace(124, 11, octal, 11);
  block[156] = type;
  block.replace(257, 8, std::string_view("ustar\00000", 8));
  if (edit) edit(block);
  block.replace(148, 8, "        ");
  unsigned sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  snprintf(octal, sizeof octal, "%06o", sum);
  block.replace(148, 7, octal, 7);
  return block;
}

std::string padded(std::string bytes) {
  bytes.resize((bytes.size() + 511) / 512 * 512);
  return bytes;
}

std::string file(std::string_view name, std::string_view content) {
  return header(name, content.size()) + padded(std::string(content));
}

std::string pax(std::string_view key, std::string_view value, char type = 'x') {
  const size_t rest = key.size() + value.size() + 3;
  size_t length = rest + 1;
  while (length != rest + std::to_string(length).size()) ++length;
  const std::string record = str_cat(length, " ", key, "=", value, "\n");
  return header("pax", record.size(), type) + padded(record);
}

const std::string kEnd(1024, '\0');

// "path=content;" of each file, "path->link;" of each hard link; or "error: " and the message.
std::string read(std::string_view bytes, size_t step = SIZE_MAX) {
  TarReader reader([&](char* buffer, size_t size) -> Result<size_t> {
    const size_t take = std::min({size, step, bytes.size()});
    if (take > 0) std::memcpy(buffer, bytes.data(), take);
    bytes.remove_prefix(take);
    return take;
  });
  std::string found;
  while (true) {
    const auto entry = reader.next();
    if (!entry.ok()) return "error: " + entry.status().message();
    if (!*entry) return found;
    found += (*entry)->path;
    if (!(*entry)->link.empty()) {
      found += "->" + (*entry)->link + ";";
      continue;
    }
    found += "=";
    char piece[100];
    while (true) {
      const auto got = reader.read(piece, sizeof piece);
      if (!got.ok()) return "error: " + got.status().message();
      if (*got == 0) break;
      found.append(piece, *got);
    }
    found += ";";
  }
}

TEST(TarReader, FilesInAnyPieces) {
  const std::string tar = header("dir/", 0, '5') + file("dir/a", "one") + file("./b", "") +
                          file("c", std::string(1000, 'x')) +
                          header("l", 0, '1', [](auto& block) { block.replace(157, 5, "dir/a"); }) +
                          kEnd;
  const std::string expected = "dir/a=one;b=;c=" + std::string(1000, 'x') + ";l->dir/a;";
  for (const size_t step : {SIZE_MAX, size_t{1}, size_t{511}}) EXPECT_EQ(read(tar, step), expected);
}

TEST(TarReader, LongNamesAndSizes) {
  const std::string name = "d/" + std::string(200, 'n');
  EXPECT_EQ(read(pax("path", name) + file("short", "x") + kEnd), name + "=x;");
  EXPECT_EQ(read(header("././@LongLink", name.size() + 1, 'L') + padded(name + '\0') +
                 file("short", "x") + kEnd),
            name + "=x;");
  EXPECT_EQ(read(header("file", 1, '0', [](auto& block) { block.replace(345, 6, "prefix"); }) +
                 padded("x") + kEnd),
            "prefix/file=x;");
  // The size of a pax header, and a base-256 one.
  EXPECT_EQ(read(pax("size", "3") + header("f", 0) + padded("abc") + kEnd), "f=abc;");
  EXPECT_EQ(read(header("f", 0, '0',
                        [](auto& block) {
                          block.replace(124, 12,
                                        std::string("\x80", 1) + std::string(10, '\0') + "\3");
                        }) +
                 padded("abc") + kEnd),
            "f=abc;");
  // One header's extensions are not the next one's.
  EXPECT_EQ(read(pax("path", "p") + file("a", "1") + file("b", "2") + kEnd), "p=1;b=2;");
  EXPECT_EQ(read(pax("comment", "c", 'g') + file("a", "1") + kEnd), "a=1;");
}

TEST(TarReader, RefusesWhatCannotBeAFile) {
  for (const char type : {'2', '3', '4', '6', 'S', 'M', 'Z'}) {
    EXPECT_TRUE(read(header("x", 0, type) + kEnd).starts_with("error: tar: \"x\" is")) << type;
  }
  for (const char* name : {"/x", "../x", "a/../x", "a/..", "\xff", "a\nb"}) {
    EXPECT_TRUE(read(file(name, "1") + kEnd).starts_with("error:")) << name;
  }
  EXPECT_TRUE(read(pax("GNU.sparse.major", "1") + file("x", "1") + kEnd).starts_with("error:"));
  EXPECT_TRUE(read(pax("path", "same", 'g') + file("x", "1") + kEnd).starts_with("error:"));
  EXPECT_TRUE(read(header("l", 0, '1', [](auto& b) { b.replace(157, 4, "../x"); }) + kEnd)
                  .starts_with("error:"));
}

TEST(TarReader, NoticesDamage) {
  const std::string tar = file("a", "content") + file("b", "more") + kEnd;
  for (size_t length = 0; length < tar.size() - 512; ++length) {
    EXPECT_TRUE(read(tar.substr(0, length)).starts_with("error:")) << length;
  }
  EXPECT_EQ(read(tar.substr(0, tar.size())), "a=content;b=more;");
  for (size_t at = 0; at < 512; ++at) {
    std::string damaged = tar;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    EXPECT_TRUE(read(damaged).starts_with("error:")) << at;
  }
  EXPECT_TRUE(read(tar + tar).starts_with("error: tar: it goes on"));
  EXPECT_EQ(read(tar + std::string(8192, '\0')), "a=content;b=more;");
  EXPECT_TRUE(read("\x1f\x8b" + std::string(600, 'x')).starts_with("error: tar: it is compressed"));
  for (const char* record :
       {"", "5 a=\n", "x path=a\n", "99 path=a\n", "9 patha\n", "11 size=-1\n"}) {
    EXPECT_TRUE(read(header("p", strlen(record) + 1, 'x') + padded(std::string(record) + "\n") +
                     file("a", "1") + kEnd)
                    .starts_with("error:"))
        << record;
  }
}

}  // namespace
}  // namespace qanat::connect
