#include "qanat/api/describe.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "qanat/api/time.h"

namespace qanat::api {
namespace {

enum class Colour { kRed, kGreen };
std::vector<EnumValue> enum_values(Colour) { return {{0, "red"}, {1, "green"}}; }

struct Leaf {
  std::string name;
  Colour colour = Colour::kRed;
  std::vector<Leaf> children;
};
template <class V>
void describe(V& v, Leaf& t) {
  v.type("Leaf", "A leaf.");
  v.required("name", t.name, "Its name.");
  v.optional("colour", t.colour, "Its colour.");
  v.optional("children", t.children, "Leaves on it.");
}

struct Thing {
  std::string name;
  bool enabled = true;
  int64_t datum_tries = 3;
  int32_t small = 0;
  uint64_t size = 0;
  double ratio = 0.5;
  std::optional<Leaf> leaf;
  std::vector<std::string> cmd;
  std::map<std::string, Leaf> leaves;
  Timestamp created;
  RawJson raw;
};
template <class V>
void describe(V& v, Thing& t) {
  v.type("Thing", "A thing.");
  v.required("name", t.name, "Its name.");
  v.optional("enabled", t.enabled, "");
  v.optional("datum_tries", t.datum_tries, "");
  v.optional("small", t.small, "");
  v.optional("size", t.size, "");
  v.optional("ratio", t.ratio, "");
  v.optional("leaf", t.leaf, "");
  v.optional("cmd", t.cmd, "");
  v.optional("leaves", t.leaves, "");
  v.optional("created", t.created, "");
  v.optional("raw", t.raw, "");
}

std::string error_of(std::string_view text, const ReadOptions& options = {}) {
  auto thing = parse_json<Thing>(text, options);
  return thing.ok() ? "accepted" : thing.status().message();
}

TEST(DescribeTest, RoundTrip) {
  const char* text =
      R"({"name":"a","enabled":false,"datum_tries":-7,"small":5,"size":18446744073709551615,)"
      R"("ratio":0.1,"leaf":{"name":"l","colour":"green","children":[{"name":"m"}]},)"
      R"("cmd":["x","\"y\"\n"],"leaves":{"k":{"name":"v"}},"created":"2026-03-01T12:00:00.250Z",)"
      R"("raw":{"z":1,"a":[true,null]}})";
  auto thing = parse_json<Thing>(text);
  ASSERT_TRUE(thing.ok()) << thing.status().to_string();
  EXPECT_EQ(thing->leaf->children[0].name, "m");
  EXPECT_EQ(thing->raw.text, R"({"z":1,"a":[true,null]})") << "order is kept";
  EXPECT_EQ(thing->created.ms % 1000, 250);
  auto again = parse_json<Thing>(json_text(*thing));
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  EXPECT_TRUE(described_equal(*thing, *again));
  auto pretty = parse_json<Thing>(json_text(*thing, 2));
  ASSERT_TRUE(pretty.ok()) << pretty.status().to_string();
  EXPECT_TRUE(described_equal(*thing, *pretty));
  EXPECT_FALSE(described_equal(*thing, Thing{}));
}

TEST(DescribeTest, WritesOnlyWhatDiffersFromTheDefault) {
  Thing thing;
  EXPECT_EQ(json_text(thing), R"({"name":""})");
  thing.name = "x";
  thing.datum_tries = 0;
  EXPECT_EQ(json_text(thing), R"({"name":"x","datum_tries":0})");
  EXPECT_EQ(json_text(thing, 2), "{\n  \"name\": \"x\",\n  \"datum_tries\": 0\n}");
}

TEST(DescribeTest, EscapesAndReplacesBrokenUtf8) {
  Leaf leaf;
  leaf.name = "a\x01\"\\\xff\xc3\xa9\xed\xa0\x80";
  std::string text = json_text(leaf);
  auto parsed = nlohmann::json::parse(text);
  EXPECT_TRUE(parsed["name"].get<std::string>().starts_with("a\x01\"\\\xef\xbf\xbd\xc3\xa9"));
}

TEST(DescribeTest, ErrorsSayWhereAndWhat) {
  EXPECT_EQ(error_of("{}"), "required field \"name\" is missing");
  EXPECT_EQ(error_of(R"({"name":1})"), "name: expected a string, found the number 1");
  EXPECT_EQ(error_of(R"({"name":"a","leaf":{"nam":"b"}})"),
            "leaf: unknown field \"nam\"; did you mean \"name\"?");
  EXPECT_EQ(error_of(R"({"name":"a","leaf":{"name":"b","children":[{"name":[]}]}})"),
            "leaf.children[0].name: expected a string, found a list");
  EXPECT_EQ(error_of(R"({"name":"a","leaves":{"k":{"name":"v","colour":"blue"}}})"),
            "leaves.k.colour: unknown value \"blue\"");
  EXPECT_EQ(error_of(R"({"name":"a","small":3000000000})"),
            "small: 3000000000 does not fit 32 bits");
  EXPECT_EQ(error_of(R"({"name":"a","size":-1})"),
            "size: expected an integer that is not negative, found the number -1");
  EXPECT_EQ(error_of(R"({"name":"a","datum_tries":"3"})"),
            "datum_tries: expected an integer, found the string \"3\"");
  EXPECT_EQ(error_of(R"({"name":"a","name":"b"})"), "field \"name\" is given twice");
  EXPECT_EQ(error_of(R"({"name":null})"), "required field \"name\" is missing");
  EXPECT_EQ(error_of("[]"), "expected an object, found a list");
  EXPECT_TRUE(error_of("{\"name\":\"a\"} x").starts_with("not valid JSON"));
  EXPECT_TRUE(error_of("{\"name\":").starts_with("not valid JSON"));
  EXPECT_NE(error_of(R"({"name":"a","created":"yesterday"})").find("created: "), std::string::npos);
  EXPECT_EQ(error_of(R"({"name":"a","raw":)" + std::string(200, '[') + std::string(200, ']') + "}"),
            "JSON is nested deeper than 100");
}

TEST(DescribeTest, OptionsLoosenReading) {
  EXPECT_EQ(error_of(R"({"name":"a","datumTries":4})", {.camel_case = true}), "accepted");
  EXPECT_NE(error_of(R"({"name":"a","datumTries":4})"), "accepted");
  EXPECT_NE(error_of(R"({"name":"a","datumTries":4,"datum_tries":5})", {.camel_case = true}),
            "accepted");
  EXPECT_EQ(error_of(R"({"name":"a","datum_tries":"4"})", {.number_strings = true}), "accepted");
  EXPECT_NE(error_of(R"({"name":"a","datum_tries":"4x"})", {.number_strings = true}), "accepted");
  EXPECT_EQ(error_of(R"({"name":"a","new_field":{}})", {.ignore_unknown = true}), "accepted");
}

TEST(DescribeTest, EnumsByName) {
  EXPECT_EQ(enum_name(Colour::kGreen), "green");
  EXPECT_EQ(*parse_enum<Colour>("red"), Colour::kRed);
  EXPECT_FALSE(parse_enum<Colour>("blue").ok());
}

TEST(DescribeTest, SchemaOfRecursiveStruct) {
  std::map<std::string, std::string> schemas;
  EXPECT_EQ(schema_text(type_of<Thing>(), schemas), R"({"$ref":"#/components/schemas/Thing"})");
  ASSERT_EQ(schemas.size(), 2U);
  auto leaf = nlohmann::json::parse(schemas["Leaf"]);
  EXPECT_EQ(leaf["properties"]["children"]["items"]["$ref"], "#/components/schemas/Leaf");
  EXPECT_EQ(leaf["properties"]["colour"]["enum"], nlohmann::json({"red", "green"}));
  EXPECT_EQ(leaf["required"], nlohmann::json({"name"}));
  EXPECT_EQ(leaf["properties"]["name"]["description"], "Its name.");
  auto thing = nlohmann::json::parse(schemas["Thing"]);
  EXPECT_EQ(thing["properties"]["created"]["format"], "date-time");
  EXPECT_EQ(thing["properties"]["leaves"]["additionalProperties"]["$ref"],
            "#/components/schemas/Leaf");
}

TEST(DescribeTest, ClosestName) {
  std::vector<std::string> known = {"parallelism_spec", "transform", "input"};
  EXPECT_EQ(closest_name("paralelism_spec", known), "parallelism_spec");
  EXPECT_EQ(closest_name("tranform", known), "transform");
  EXPECT_EQ(closest_name("xyz", known), "");
}

}  // namespace
}  // namespace qanat::api
