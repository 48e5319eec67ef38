#include "qanat/meta/store.h"

#include "qanat/base/string.h"

namespace qanat::meta {

std::string prefix_end(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
  if (!end.empty()) end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

std::string key_after(std::string_view key) {
  std::string after(key);
  after.push_back('\0');
  return after;
}

KeyRange KeyRange::single(std::string_view key) { return {std::string(key), key_after(key)}; }
KeyRange KeyRange::prefix(std::string_view prefix) {
  return {std::string(prefix), prefix_end(prefix)};
}
KeyRange KeyRange::between(std::string_view begin, std::string_view end) {
  return {std::string(begin), std::string(end)};
}
bool KeyRange::contains(std::string_view key) const {
  return key >= begin && (end.empty() || key < end);
}

Compare key_absent(std::string_view key) { return create_revision_is(key, 0); }
Compare key_present(std::string_view key) {
  return {std::string(key), Compare::Target::kCreateRevision, Compare::Relation::kGreater, 0, {}};
}
Compare mod_revision_is(std::string_view key, int64_t revision) {
  return {std::string(key), Compare::Target::kModRevision, Compare::Relation::kEqual, revision, {}};
}
Compare create_revision_is(std::string_view key, int64_t revision) {
  return {
      std::string(key), Compare::Target::kCreateRevision, Compare::Relation::kEqual, revision, {}};
}
Compare value_is(std::string_view key, std::string_view value) {
  return {std::string(key), Compare::Target::kValue, Compare::Relation::kEqual, 0,
          std::string(value)};
}

Operation put(std::string_view key, std::string value, int64_t lease) {
  return {Operation::Kind::kPut, KeyRange::single(key), std::move(value), lease, {}};
}
Operation erase(std::string_view key) { return erase_range(KeyRange::single(key)); }
Operation erase_range(KeyRange range) {
  return {Operation::Kind::kDelete, std::move(range), {}, 0, {}};
}
Operation get(std::string_view key) { return get_range(KeyRange::single(key)); }
Operation get_range(KeyRange range, RangeOptions options) {
  return {Operation::Kind::kRange, std::move(range), {}, 0, options};
}

Transaction& Transaction::when(Compare compare) {
  compares.push_back(std::move(compare));
  return *this;
}
Transaction& Transaction::put(std::string_view key, std::string value, int64_t lease) {
  return add(meta::put(key, std::move(value), lease));
}
Transaction& Transaction::erase(std::string_view key) { return add(meta::erase(key)); }
Transaction& Transaction::add(Operation operation) {
  then.push_back(std::move(operation));
  return *this;
}
Transaction& Transaction::add(Transaction other) {
  std::move(other.compares.begin(), other.compares.end(), std::back_inserter(compares));
  std::move(other.then.begin(), other.then.end(), std::back_inserter(then));
  std::move(other.otherwise.begin(), other.otherwise.end(), std::back_inserter(otherwise));
  may_use_reserve |= other.may_use_reserve;
  return *this;
}
Transaction& Transaction::or_else(Operation operation) {
  otherwise.push_back(std::move(operation));
  return *this;
}

namespace {

Status check_key(std::string_view key) {
  if (key.empty() || key.size() > kMaxKeyBytes || key.find('\0') != std::string_view::npos) {
    return invalid_argument(str_cat("meta key ", quoted(key.substr(0, 100)), " of ", key.size(),
                                    " bytes: 1 to ", kMaxKeyBytes, " without NUL are allowed"));
  }
  return ok_status();
}

// Adds the branch's bytes to `bytes`.
Status check_branch(const std::vector<Operation>& operations, size_t& bytes) {
  if (operations.size() > kMaxOperations) {
    return invalid_argument(str_cat("transaction of ", operations.size(), " operations; ",
                                    kMaxOperations, " are allowed"));
  }
  std::vector<std::string_view> puts;
  for (const Operation& operation : operations) {
    bytes += operation.range.begin.size() + operation.value.size();
    if (operation.kind == Operation::Kind::kPut) {
      QANAT_RETURN_IF_ERROR(check_key(operation.range.begin));
      puts.push_back(operation.range.begin);
    } else if (operation.kind == Operation::Kind::kRange && operation.options.revision != 0) {
      return invalid_argument("a range inside a transaction reads the transaction's own revision");
    }
  }
  std::sort(puts.begin(), puts.end());
  auto twice = std::adjacent_find(puts.begin(), puts.end());
  if (twice != puts.end()) {
    return invalid_argument(str_cat("transaction puts ", *twice, " twice"));
  }
  for (const Operation& operation : operations) {
    if (operation.kind != Operation::Kind::kDelete) continue;
    auto first = std::lower_bound(puts.begin(), puts.end(), operation.range.begin);
    if (first != puts.end() && operation.range.contains(*first)) {
      return invalid_argument(str_cat("transaction puts and erases ", *first));
    }
  }
  return ok_status();
}

}  // namespace

Status check_transaction(const Transaction& transaction) {
  if (transaction.compares.size() > kMaxOperations) {
    return invalid_argument(str_cat("transaction of ", transaction.compares.size(), " compares; ",
                                    kMaxOperations, " are allowed"));
  }
  size_t compared = 0, then = 0, otherwise = 0;
  for (const Compare& compare : transaction.compares) {
    QANAT_RETURN_IF_ERROR(check_key(compare.key));
    compared += compare.key.size() + compare.value.size();
  }
  QANAT_RETURN_IF_ERROR(check_branch(transaction.then, then));
  QANAT_RETURN_IF_ERROR(check_branch(transaction.otherwise, otherwise));
  size_t bytes = compared + std::max(then, otherwise);
  if (bytes > kMaxTransactionBytes) {
    return too_large(str_cat("transaction of ", format_size(bytes), "; ",
                             format_size(kMaxTransactionBytes), " are allowed"));
  }
  return ok_status();
}

bool holds(const Compare& compare, const KeyValue* item) {
  if (compare.target == Compare::Target::kValue) {
    if (item == nullptr) return compare.relation == Compare::Relation::kNotEqual;
    int order = item->value.compare(compare.value);
    switch (compare.relation) {
      case Compare::Relation::kEqual:
        return order == 0;
      case Compare::Relation::kNotEqual:
        return order != 0;
      case Compare::Relation::kLess:
        return order < 0;
      case Compare::Relation::kGreater:
        return order > 0;
    }
    return false;
  }
  int64_t number = 0;
  if (item != nullptr) {
    switch (compare.target) {
      case Compare::Target::kCreateRevision:
        number = item->create_revision;
        break;
      case Compare::Target::kModRevision:
        number = item->mod_revision;
        break;
      case Compare::Target::kVersion:
        number = item->version;
        break;
      case Compare::Target::kLease:
        number = item->lease;
        break;
      case Compare::Target::kValue:
        break;
    }
  }
  switch (compare.relation) {
    case Compare::Relation::kEqual:
      return number == compare.number;
    case Compare::Relation::kNotEqual:
      return number != compare.number;
    case Compare::Relation::kLess:
      return number < compare.number;
    case Compare::Relation::kGreater:
      return number > compare.number;
  }
  return false;
}

Result<std::optional<KeyValue>> Store::get(std::string_view key, int64_t revision) const {
  QANAT_ASSIGN_OR_RETURN(RangeResult found,
                         range(KeyRange::single(key), {.limit = 1, .revision = revision}));
  if (found.items.empty()) return std::optional<KeyValue>();
  return std::optional<KeyValue>(std::move(found.items.front()));
}

}  // namespace qanat::meta
