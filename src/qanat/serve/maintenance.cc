#include "qanat/serve/maintenance.h"

#include "qanat/base/log.h"
#include "qanat/base/string.h"

namespace qanat::serve {
namespace {

constexpr std::string_view kKey = "/v1/paused";

struct PausedRecord {
  int64_t v = 1;
  std::string reason;
  int64_t since_ms = 0;
};
template <class V>
void describe(V& v, PausedRecord& t) {
  v.type("PausedRecord", "");
  v.required("v", t.v, "");
  v.optional("reason", t.reason, "");
  v.required("since_ms", t.since_ms, "");
}

// What cannot be read says at least that it is paused.
api::MaintenanceInfo parse(std::string_view value) {
  const auto record = api::parse_json<PausedRecord>(value, {.ignore_unknown = true});
  if (!record.ok()) return {true, "", {}};
  return {true, record->reason, {record->since_ms}};
}

}  // namespace

Result<std::unique_ptr<Maintenance>> Maintenance::start(meta::Store& store, Clock& clock) {
  std::unique_ptr<Maintenance> self(new Maintenance(store, clock));
  const meta::KeyRange range = meta::KeyRange::single(kKey);
  QANAT_ASSIGN_OR_RETURN(const auto found, store.range(range));
  if (!found.items.empty()) {
    MutexLock lock(self->mutex_);
    self->info_ = parse(found.items[0].value);
  }
  QANAT_ASSIGN_OR_RETURN(
      self->watch_,
      store.watch(range, found.revision + 1, [raw = self.get()](const meta::WatchBatch& batch) {
        MutexLock lock(raw->mutex_);
        for (const meta::Event& event : batch.events) {
          raw->info_ = event.deleted ? api::MaintenanceInfo{} : parse(event.item.value);
        }
      }));
  return self;
}

bool Maintenance::paused() const {
  MutexLock lock(mutex_);
  return info_.paused;
}

api::MaintenanceInfo Maintenance::info() const {
  MutexLock lock(mutex_);
  return info_;
}

Status Maintenance::check_writable() const {
  const api::MaintenanceInfo now = info();
  if (!now.paused) return ok_status();
  return failed_precondition(
      str_cat("the installation is paused: it can be read, but not changed",
              now.reason.empty() ? "" : str_cat(" (", now.reason, ")")),
      "try again when it is resumed; an admin does that with `qanat resume`");
}

Status Maintenance::load() {
  QANAT_ASSIGN_OR_RETURN(const auto found, store_.get(kKey));
  MutexLock lock(mutex_);
  info_ = found ? parse(found->value) : api::MaintenanceInfo{};
  return ok_status();
}

Status Maintenance::pause(const std::string& reason) {
  const PausedRecord record{1, reason, clock_.wall_ms()};
  meta::Transaction transaction;
  transaction.put(kKey, api::json_text(record));
  transaction.may_use_reserve = true;
  QANAT_RETURN_IF_ERROR(store_.commit(std::move(transaction)).status());
  log_info("paused", {{"reason", reason}});
  return load();
}

Status Maintenance::resume() {
  QANAT_RETURN_IF_ERROR(store_.commit(meta::Transaction().erase(kKey)).status());
  log_info("resumed", {});
  return load();
}

}  // namespace qanat::serve
