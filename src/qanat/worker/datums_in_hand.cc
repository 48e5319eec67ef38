#include "qanat/worker/datums_in_hand.h"

namespace qanat::worker {

void DatumsInHand::add(const std::string& job, const std::string& datum) {
  MutexLock lock(mutex_);
  datums_[{job, datum}] = false;
}

void DatumsInHand::remove(const std::string& job, const std::string& datum) {
  MutexLock lock(mutex_);
  datums_.erase({job, datum});
}

bool DatumsInHand::cancelled(const std::string& job, const std::string& datum) const {
  MutexLock lock(mutex_);
  auto found = datums_.find({job, datum});
  return found == datums_.end() || found->second;
}

std::vector<api::HeldDatums> DatumsInHand::held() const {
  MutexLock lock(mutex_);
  std::vector<api::HeldDatums> held;
  for (const auto& [key, is_cancelled] : datums_) {
    if (is_cancelled) continue;
    if (held.empty() || held.back().job != key.first) held.push_back({key.first, {}});
    held.back().datums.push_back(key.second);
  }
  return held;
}

void DatumsInHand::start_running(const std::string& job, const std::string& datum,
                                 Cancellation* cancel) {
  MutexLock lock(mutex_);
  running_ = {job, datum};
  cancel_ = cancel;
  auto found = datums_.find(running_);
  if (found == datums_.end() || found->second) cancel->cancel();
}

void DatumsInHand::stop_running() {
  MutexLock lock(mutex_);
  cancel_ = nullptr;
}

void DatumsInHand::cancel(const std::vector<api::HeldDatums>& unwanted) {
  MutexLock lock(mutex_);
  for (const api::HeldDatums& of_job : unwanted) {
    for (const std::string& datum : of_job.datums) {
      const auto found = datums_.find({of_job.job, datum});
      if (found == datums_.end()) continue;
      found->second = true;
      if (cancel_ != nullptr && found->first == running_) cancel_->cancel();
    }
  }
}

}  // namespace qanat::worker
