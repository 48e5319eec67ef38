// A page of a list, as every listing route answers it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qanat/api/describe.h"

namespace qanat::api {

template <class T>
struct List {
  std::vector<T> items;
  std::string next;  // give it as `page` to have the next page; "" at the end
  int64_t revision = 0;
};
template <class V, class T>
void describe(V& v, List<T>& t) {
  v.type(type_of<T>().name + "List", "A page of a list. All pages are of one revision.");
  v.required("items", t.items, "The items.");
  v.optional("next", t.next, "Give it as `page` to have the next page; absent at the end.");
  v.optional("revision", t.revision,
             "What the list shows is the state of this revision; a watch goes on from it.");
}

}  // namespace qanat::api
