#include "qanat/base/bytes.h"

#include <gtest/gtest.h>

namespace qanat {
namespace {

TEST(Bytes, Hex) {
  EXPECT_EQ(to_hex(std::string("\x00\x7f\xff", 3)), "007fff");
  EXPECT_EQ(*from_hex("007FfF"), std::string("\x00\x7f\xff", 3));
  EXPECT_EQ(from_hex("abc").code(), Code::kInvalidArgument);
  EXPECT_EQ(from_hex("zz").code(), Code::kInvalidArgument);
}

TEST(Bytes, Hex16KeepsOrder) {
  EXPECT_EQ(to_hex16(0x1f), "000000000000001f");
  EXPECT_EQ(*from_hex16("00000000000000ff"), 255U);
  EXPECT_EQ(*from_hex16(to_hex16(UINT64_MAX)), UINT64_MAX);
  EXPECT_FALSE(from_hex16("ff").ok());
  EXPECT_FALSE(from_hex16("00000000000000FF").ok());
}

// The vectors of RFC 4648, section 10.
TEST(Bytes, Base64) {
  EXPECT_EQ(to_base64("f"), "Zg==");
  EXPECT_EQ(to_base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(to_base64("fooba"), "Zm9vYmE=");
  EXPECT_EQ(to_base64url("fooba"), "Zm9vYmE");
  EXPECT_EQ(to_base64url("\xfb\xff"), "-_8");
  for (std::string_view text : {"", "f", "fo", "foo", "foob", "fooba", "foobar"}) {
    EXPECT_EQ(*from_base64(to_base64(text)), text);
    EXPECT_EQ(*from_base64url(to_base64url(text)), text);
  }
  EXPECT_FALSE(from_base64("Zg").ok());
  EXPECT_FALSE(from_base64url("Zg==").ok());
  EXPECT_FALSE(from_base64url("Zh").ok()) << "stray bits";
  EXPECT_FALSE(from_base64url("Z").ok());
}

TEST(Bytes, FixedWidth) {
  std::string out;
  put_u8(out, 1);
  put_u16(out, 0x0302);
  put_u32(out, 0x07060504);
  put_u64(out, 0x0f0e0d0c0b0a0908);
  EXPECT_EQ(to_hex(out), "0102030405060708090a0b0c0d0e0f");
  Reader reader(out);
  EXPECT_EQ(*reader.u8(), 1);
  EXPECT_EQ(*reader.u16(), 0x0302);
  EXPECT_EQ(*reader.u32(), 0x07060504U);
  EXPECT_EQ(*reader.u64(), 0x0f0e0d0c0b0a0908U);
  EXPECT_TRUE(reader.expect_end().ok());
  EXPECT_EQ(reader.u8().code(), Code::kDataLoss);
}

TEST(Bytes, VarintRoundTrip) {
  for (unsigned shift = 0; shift < 64; ++shift) {
    for (uint64_t delta : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}}) {
      const uint64_t value = (uint64_t{1} << shift) + delta;
      std::string out;
      put_varint(out, value);
      EXPECT_EQ(out.size(), varint_size(value));
      Reader reader(out);
      EXPECT_EQ(*reader.varint(), value);
      EXPECT_TRUE(reader.at_end());
    }
  }
  EXPECT_EQ(varint_size(0), 1U);
  EXPECT_EQ(varint_size(UINT64_MAX), 10U);
}

TEST(Bytes, VarintRefusesOtherSpellings) {
  for (std::string_view bad :
       {std::string_view("\x80", 1), std::string_view("\x80\x00", 2),
        std::string_view("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10),
        std::string_view("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11), std::string_view()}) {
    Reader reader(bad);
    EXPECT_EQ(reader.varint().code(), Code::kDataLoss);
    EXPECT_EQ(reader.position(), 0U);
  }
}

TEST(Bytes, ReaderChecksLengths) {
  std::string out;
  put_bytes(out, "hello");
  for (size_t length = 0; length < out.size(); ++length) {
    Reader cut(std::string_view(out).substr(0, length));
    EXPECT_EQ(cut.bytes().code(), Code::kDataLoss);
    EXPECT_EQ(cut.position(), 0U);
  }
  Reader reader(out);
  EXPECT_EQ(*reader.bytes(), "hello");

  std::string huge;
  put_varint(huge, UINT64_MAX);
  Reader hostile(huge);
  EXPECT_EQ(hostile.bytes().code(), Code::kDataLoss);
  EXPECT_EQ(hostile.raw(SIZE_MAX).code(), Code::kDataLoss);
}

TEST(Bytes, ReaderExpects) {
  Reader reader("MAGIC!");
  EXPECT_EQ(reader.expect("OTHER", "pack").code(), Code::kDataLoss);
  EXPECT_TRUE(reader.expect("MAGIC", "pack").ok());
  EXPECT_EQ(reader.expect_end().code(), Code::kDataLoss);
  EXPECT_EQ(reader.rest(), "!");
}

}  // namespace
}  // namespace qanat
