#include "qanat/pipeline/lease_table.h"

#include <algorithm>

namespace qanat::pipeline {

void LeaseTable::give(Entry& entry, const std::string& worker, int64_t now_ms) {
  if (!entry.worker.empty()) {
    expiries_.erase({entry.expires_ms, entry.ticket.datum_id});
    const auto held = held_.find(entry.worker);
    held->second.erase(entry.ticket.datum_id);
    if (held->second.empty()) held_.erase(held);
  }
  entry.worker = worker;
  entry.expires_ms = now_ms + ttl_ms_;
  expiries_.insert({entry.expires_ms, entry.ticket.datum_id});
  held_[worker].insert(entry.ticket.datum_id);
}

void LeaseTable::take_back(const std::string& id) {
  Entry& entry = entries_.at(id);
  expiries_.erase({entry.expires_ms, id});
  auto held = held_.find(entry.worker);
  held->second.erase(id);
  if (held->second.empty()) held_.erase(held);
  entry.worker.clear();
  entry.adopted = false;
  waiting_.push_front(id);
}

void LeaseTable::add(Ticket ticket, int64_t now_ms) {
  const std::string id = ticket.datum_id;
  auto [position, added] = entries_.try_emplace(id);
  if (!added) return;
  position->second.ticket = std::move(ticket);
  auto claim = claims_.find(id);
  if (claim != claims_.end()) {
    const auto [worker, until] = claim->second;
    claims_.erase(claim);
    if (until > now_ms) {
      give(position->second, worker, now_ms);
      position->second.adopted = true;
      return;
    }
  }
  waiting_.push_back(id);
}

std::vector<const Ticket*> LeaseTable::lease(const std::string& worker, size_t max,
                                             int64_t now_ms) {
  std::vector<const Ticket*> given;
  const auto held = held_.find(worker);
  const bool busy = held != held_.end();
  if (busy && std::ranges::any_of(held->second, [&](const std::string& id) {
        return entries_.at(id).ticket.restarts > 0;
      })) {
    return given;
  }
  // Those whose workers were lost wait in front; a worker that may not have them looks past them.
  for (auto next = waiting_.begin(); next != waiting_.end() && given.size() < max;) {
    Entry& entry = entries_.at(*next);
    const bool alone = entry.ticket.restarts > 0;
    if (alone && (busy || !given.empty())) {
      ++next;
      continue;
    }
    next = waiting_.erase(next);
    give(entry, worker, now_ms);
    given.push_back(&entry.ticket);
    if (alone) break;
  }
  return given;
}

std::vector<std::string> LeaseTable::renew(const std::string& worker,
                                           const std::vector<std::string>& datums, int64_t now_ms) {
  std::vector<std::string> lost;
  for (const std::string& id : datums) {
    auto found = entries_.find(id);
    if (found == entries_.end()) {
      claims_[id] = {worker, now_ms + ttl_ms_};
      continue;
    }
    Entry& entry = found->second;
    if (entry.worker.empty()) {
      waiting_.erase(std::find(waiting_.begin(), waiting_.end(), id));
      give(entry, worker, now_ms);
      entry.adopted = true;
    } else if (entry.worker == worker) {
      give(entry, worker, now_ms);
    } else if (!entry.adopted && now_ms < adopt_until_ms_) {
      give(entry, worker, now_ms);
      entry.adopted = true;
    } else {
      lost.push_back(id);
    }
  }
  return lost;
}

std::optional<Ticket> LeaseTable::complete(const std::string& datum_id) {
  claims_.erase(datum_id);
  auto found = entries_.find(datum_id);
  if (found == entries_.end()) return std::nullopt;
  Entry& entry = found->second;
  if (entry.worker.empty()) {
    waiting_.erase(std::find(waiting_.begin(), waiting_.end(), datum_id));
  } else {
    expiries_.erase({entry.expires_ms, datum_id});
    auto held = held_.find(entry.worker);
    held->second.erase(datum_id);
    if (held->second.empty()) held_.erase(held);
  }
  Ticket ticket = std::move(entry.ticket);
  entries_.erase(found);
  return ticket;
}

const Ticket* LeaseTable::find(const std::string& datum_id) const {
  auto found = entries_.find(datum_id);
  return found == entries_.end() ? nullptr : &found->second.ticket;
}

std::vector<std::string> LeaseTable::release(const std::string& worker, bool oom) {
  std::erase_if(claims_, [&worker](const auto& claim) { return claim.second.first == worker; });
  auto held = held_.find(worker);
  if (held == held_.end()) return {};
  const std::vector<std::string> ids(held->second.begin(), held->second.end());
  for (const std::string& id : ids) {
    Ticket& ticket = entries_.at(id).ticket;
    ++ticket.restarts;
    if (oom && ids.size() == 1) ++ticket.ooms;
    take_back(id);
  }
  return ids;
}

void LeaseTable::give_back(const std::string& worker, const std::vector<std::string>& datums) {
  // Backwards, so that they wait in the order they had.
  for (auto id = datums.rbegin(); id != datums.rend(); ++id) {
    const auto found = entries_.find(*id);
    if (found != entries_.end() && found->second.worker == worker) take_back(*id);
  }
}

size_t LeaseTable::expire(int64_t now_ms) {
  std::vector<std::string> ids;
  for (const auto& [time, id] : expiries_) {
    if (time > now_ms) break;
    ids.push_back(id);
  }
  for (const std::string& id : ids) {
    ++entries_.at(id).ticket.restarts;
    take_back(id);
  }
  std::erase_if(claims_, [now_ms](const auto& claim) { return claim.second.second <= now_ms; });
  return ids.size();
}

std::optional<int64_t> LeaseTable::next_expiry() const {
  if (expiries_.empty()) return std::nullopt;
  return expiries_.begin()->first;
}

bool LeaseTable::one_waits_for_a_free_worker() const {
  return !waiting_.empty() && entries_.at(waiting_.front()).ticket.restarts > 0;
}

std::map<std::string, std::string> LeaseTable::running() const {
  std::map<std::string, std::string> running;
  for (const auto& [worker, ids] : held_) {
    for (const std::string& id : ids) running[id] = worker;
  }
  return running;
}

}  // namespace qanat::pipeline
