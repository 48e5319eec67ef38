#include "qanat/serve/gc_service.h"

#include <sys/resource.h>

#include <algorithm>

#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/content/epoch.h"
#include "qanat/version/keys.h"

namespace qanat::serve {
namespace {

constexpr int kNice = 10;
constexpr int64_t kPollMs = 200;         // of what waits
constexpr int64_t kKeepMs = 2'000;       // between looks at the locks
constexpr int64_t kPatienceMs = 60'000;  // beyond the graces

int64_t signed_of(uint64_t number) { return static_cast<int64_t>(number); }

void fill(api::CollectionInfo& info, const content::GcReport& report) {
  info.packs = signed_of(report.packs);
  info.stored_bytes = signed_of(report.bytes);
  info.live_bytes = signed_of(report.live_bytes);
  info.young_bytes = signed_of(report.young_bytes);
  info.missing_blobs = signed_of(report.missing);
  info.dead_packs = signed_of(report.dead_packs);
  info.dead_bytes = signed_of(report.dead_bytes);
  info.rewritten_packs = signed_of(report.rewritten_packs);
  info.rewritten_bytes = signed_of(report.rewritten_bytes);
  info.rescued_packs = signed_of(report.rescued_packs);
  info.forgotten_results = signed_of(report.forgotten_results);
  info.ended_uploads = signed_of(report.ended_uploads);
  info.freed_objects = signed_of(report.freed_objects);
  info.freed_bytes = signed_of(report.freed_bytes);
  info.waiting_packs = signed_of(report.waiting_packs);
  info.holders.clear();
  for (const content::HolderUse& use : report.holders) {
    info.holders.push_back(
        {use.holder.kind, use.holder.name, signed_of(use.bytes), signed_of(use.blobs)});
  }
}

}  // namespace

GcService::GcService(GcServiceContext context) : context_(std::move(context)) {
  next_ms_ = context_.clock->monotonic_ms() + context_.interval_ms;
  keeper_ = std::thread([this] { keep_locks(); });
  thread_ = std::thread([this] { run(); });
}

GcService::~GcService() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    wake_.notify_all();
  }
  thread_.join();
  {
    MutexLock lock(keep_mutex_);
    keep_stopping_ = true;
    keep_wake_.notify_all();
  }
  keeper_.join();
}

void GcService::keep_locks() {
  MutexLock lock(keep_mutex_);
  while (!keep_stopping_) {
    for (content::GcCollector* collector : kept_) {
      if (const Status kept = collector->keep(); !kept.ok()) {
        log_warning("the lock of a garbage collection could not be kept", {{"error", kept}});
      }
    }
    (void)keep_wake_.wait_for_ms(keep_mutex_, kKeepMs);
  }
}

void GcService::let_go(Run& run) {
  {
    MutexLock lock(keep_mutex_);
    std::erase(kept_, run.collector.get());
  }
  run.collector.reset();
}

Result<std::unique_ptr<GcService::Run>> GcService::make(const std::string& project, bool dry_run,
                                                        bool now) {
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * store, context_.contents->project(project));
  content::GcContext context;
  context.meta = context_.meta;
  context.objects = context_.objects;
  context.content = store;
  context.pins = context_.pins;
  context.clock = context_.clock;
  context.sources = context_.sources;
  context.scratch = context_.scratch;
  content::GcOptions options = context_.options;
  options.dry_run = dry_run;
  options.now = now;
  auto run = std::make_unique<Run>();
  run->project = project;
  run->collector = content::GcCollector::create(std::move(context), options);
  run->info.running = true;
  run->info.dry_run = dry_run;
  run->info.started = {context_.clock->wall_ms()};
  run->give_up_ms =
      context_.clock->monotonic_ms() + options.settle_ms + options.reader_grace_ms + kPatienceMs;
  return run;
}

Result<api::CollectionInfo> GcService::start(const std::string& project, bool dry_run, bool now) {
  QANAT_ASSIGN_OR_RETURN(std::unique_ptr<Run> run, make(project, dry_run, now));
  MutexLock lock(mutex_);
  api::CollectionInfo& info = infos_[project];
  if (info.running && !info.dry_run && !dry_run && info.phase != "waiting for readers") {
    return conflict(str_cat("garbage of project ", project, " is being collected already"),
                    "wait for it to end");
  }
  run->info.number = ++last_number_;
  run->info.phase = "beginning";
  info = run->info;
  asked_.push_back(std::move(run));
  wake_.notify_all();
  return info;
}

api::CollectionInfo GcService::info(const std::string& project) const {
  MutexLock lock(mutex_);
  const auto found = infos_.find(project);
  return found == infos_.end() ? api::CollectionInfo{} : found->second;
}

void GcService::show(Run& run) {
  run.info.phase = run.collector->phase();
  fill(run.info, run.collector->report());
  MutexLock lock(mutex_);
  // One that was asked for later is what is shown.
  api::CollectionInfo& shown = infos_[run.project];
  if (shown.number <= run.info.number) shown = run.info;
}

void GcService::end(Run& run, const Status& status) {
  run.info.running = false;
  run.info.finished = {context_.clock->wall_ms()};
  if (!status.ok()) {
    run.info.error = status.message();
    run.info.hint = status.hint();
    log_warning("garbage collection failed; the next one goes on from there",
                {{"project", run.project}, {"error", status}});
  }
  show(run);
  if (status.ok() && !run.info.dry_run) {
    log_info("garbage collected", {{"project", run.project},
                                   {"freed_objects", run.info.freed_objects},
                                   {"freed_bytes", run.info.freed_bytes}});
  }
  let_go(run);
}

void GcService::step(Run& run) {
  run.waiting = false;
  if (context_.paused && context_.paused()) {
    return end(run, failed_precondition("the installation is paused", "`qanat resume` ends that"));
  }
  const auto progress = run.collector->step();
  if (!progress.ok()) return end(run, progress.status());
  using Progress = content::GcCollector::Progress;
  if (*progress == Progress::kDone) return end(run, ok_status());
  if (*progress == Progress::kWaiting) {
    run.waiting = true;
    if (context_.clock->monotonic_ms() > run.give_up_ms) {
      // Writers that live long: what is condemned is swept another time.
      return end(run, ok_status());
    }
  }
  show(run);
}

Result<std::string> GcService::fingerprint(const std::string& project) const {
  std::string text;
  for (const std::string& prefix :
       {str_cat("/v1/index/", project, "/blobs/"), version::trash_prefix(project),
        version::wave_next_key(project), content::condemned_prefix(project)}) {
    QANAT_ASSIGN_OR_RETURN(const auto found, context_.meta->range(meta::KeyRange::prefix(prefix)));
    int64_t newest = 0;
    for (const meta::KeyValue& item : found.items) newest = std::max(newest, item.mod_revision);
    str_append(text, found.items.size(), ":", newest, " ");
    // What lies in the trash goes with time.
    if (prefix == version::trash_prefix(project) && !found.items.empty()) {
      str_append(text, "at ", context_.clock->wall_ms(), " ");
    }
  }
  return text;
}

void GcService::start_due() {
  const int64_t now = context_.clock->monotonic_ms();
  if (context_.interval_ms <= 0 || now < next_ms_) return;
  next_ms_ = now + context_.interval_ms;
  if (context_.paused && context_.paused()) return;
  constexpr std::string_view kProjects = "/v1/project/";
  const auto projects = context_.meta->range(meta::KeyRange::prefix(kProjects));
  if (!projects.ok()) {
    log_warning("garbage collection was not started", {{"error", projects.status()}});
    return;
  }
  for (const meta::KeyValue& item : projects->items) {
    const std::string project = item.key.substr(kProjects.size());
    const auto changed = fingerprint(project);
    if (changed.ok() && collected_[project] == *changed) continue;
    const auto started = start(project, false, false);
    if (!started.ok() && started.code() != Code::kConflict) {
      log_warning("garbage collection was not started",
                  {{"project", project}, {"error", started.status()}});
    }
  }
}

void GcService::run() {
  // Writers first: on Linux this is the calling thread's own.
  (void)setpriority(PRIO_PROCESS, 0, kNice);
  while (true) {
    start_due();
    bool all_waiting = true;
    {
      MutexLock lock(mutex_);
      if (stopping_) break;
      for (auto& run : asked_) {
        // One that only waits makes room: the new one goes on with what it has condemned.
        std::erase_if(runs_, [&](const auto& old) {
          if (old->project != run->project || run->info.dry_run || !old->waiting) return false;
          let_go(*old);
          return true;
        });
        {
          MutexLock keep_lock(keep_mutex_);
          kept_.push_back(run->collector.get());
        }
        runs_.push_back(std::move(run));
      }
      asked_.clear();
      for (const auto& run : runs_) all_waiting = all_waiting && run->waiting;
      if (all_waiting) {
        const int64_t wait = runs_.empty() ? 1000 : kPollMs;
        (void)wake_.wait_for_ms(mutex_, wait);
        if (stopping_) break;
      }
    }
    for (const auto& run : runs_) {
      step(*run);
      // What was too young will not be for ever, also if nothing else changes.
      if (run->collector == nullptr && !run->info.dry_run && run->info.error.empty() &&
          run->info.young_bytes == 0) {
        const auto now = fingerprint(run->project);
        if (now.ok()) collected_[run->project] = *now;
      }
    }
    std::erase_if(runs_, [](const auto& run) { return run->collector == nullptr; });
  }
  for (const auto& run : runs_) let_go(*run);
  runs_.clear();
}

}  // namespace qanat::serve
